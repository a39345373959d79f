-- Store a request's final outcome, if it has none and its job is still there, and settle what it cost.
-- KEYS[1]  the batch's outcomes
-- KEYS[2]  the job's hash
-- KEYS[3]  the requests that were sent
-- KEYS[4]  the job's money
-- KEYS[5]  the requests that wait to be sent
-- KEYS[6]  those whose answers count as lost
-- KEYS[7]  the batch's hash, which counts the outcomes
-- ARGV[1]  the request's position
-- ARGV[2]  the outcome
-- ARGV[3]  what it cost, or "": all that was reserved
-- ARGV[4]  "1": its answer counts as lost; one that comes after all replaces this, as long as the batch is not final
-- Returns 1 if it was stored.
if redis.call('EXISTS', KEYS[2]) == 0 then
  return 0
end
local stored = redis.call('HSETNX', KEYS[1], ARGV[1], ARGV[2])
if stored == 1 and redis.call('HEXISTS', KEYS[7], BATCH.count) == 1 then
  redis.call('HINCRBY', KEYS[7], BATCH.stored, 1)
end
if stored == 1 and ARGV[4] == '1' then
  redis.call('SADD', KEYS[6], ARGV[1])
  -- A worker of 0.2.0 that ends the job does not know this key: it expires by itself, when the batch is gone as well.
  if redis.call('PTTL', KEYS[6]) < 0 then
    redis.call('EXPIRE', KEYS[6], RULE.RETENTION)
  end
elseif stored == 0 and ARGV[4] == '0' and redis.call('HGET', KEYS[7], BATCH.final) ~= 'true'
    and redis.call('SREM', KEYS[6], ARGV[1]) == 1 then
  redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
  stored = 1
end
local most = string.match(redis.call('HGET', KEYS[3], ARGV[1]) or '', SENT.most)
if most then
  local spent = ARGV[3] ~= '' and ARGV[3] or most
  settle(KEYS[4], MONEY.fallback, most, spent)
  settle(KEYS[4], MONEY.all, most, spent)
end
redis.call('HDEL', KEYS[3], ARGV[1])
redis.call('ZREM', KEYS[5], ARGV[1])
-- A job that is over (revoked, most likely) expires, and this with it.
local left = redis.call('PTTL', KEYS[2])
if left > 0 then
  redis.call('PEXPIRE', KEYS[1], left)
  redis.call('PEXPIRE', KEYS[6], left)
end
return stored
