-- Whether a unit's message seems to be lost; of callers at the same time, one is told.
-- KEYS[1]  the hash the unit is kept in
-- KEYS[2]  the hash without which the unit is gone
-- KEYS[3]  the index of due units
-- KEYS[4]  by how much messages are late these days, seconds
-- KEYS[5]  the index of units that wait without a message
-- ARGV[1]  prefix of the unit's fields in its hash
-- ARGV[2]  what the index calls it
-- ARGV[3]  seconds by which it must be overdue; 0: whether or not it is, unless somebody was told just now
-- Returns {position, when it was due} or nothing.
local key, prefix, member, after = KEYS[1], ARGV[1], ARGV[2], tonumber(ARGV[3])
if redis.call('HEXISTS', KEYS[2], JOB.nonce) == 0 and redis.call('HEXISTS', KEYS[2], BATCH.count) == 0 then
  redis.call('ZREM', KEYS[3], member)
  redis.call('ZREM', KEYS[5], member)
  return false
end
local due = redis.call('ZSCORE', KEYS[3], member)
-- What waits without a message is handed out by due.lua, also when no worker ran for hours.
if not due or redis.call('ZSCORE', KEYS[5], member) then
  return false
end
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1000000
local fields = redis.call('HMGET', key, prefix .. LEASE.position, prefix .. LEASE.ends, prefix .. LEASE.resent,
  prefix .. LEASE.resent_at)
if tonumber(fields[2] or '0') > now then
  return false
end
local usual = 2 * tonumber(redis.call('GET', KEYS[4]) or '0')
if after > 0 and tonumber(due) + after + usual > now
    or after == 0 and tonumber(fields[4] or '0') + RULE.RESENT_JUST_NOW > now then
  return false
end
local times = math.min(tonumber(fields[3] or '0') + 1, RULE.MAX_COPIES)
redis.call('HSET', key, prefix .. LEASE.resent, times, prefix .. LEASE.resent_at, string.format('%.3f', now))
if tonumber(due) < now then
  redis.call('HSETNX', key, prefix .. LEASE.missed, due)  -- the index soon says otherwise
end
if after > 0 then
  -- A queue that is merely long gets fewer and fewer copies of what it holds already.
  redis.call('ZADD', KEYS[3], string.format('%.3f', now + after * (2 ^ times - 1)), member)
end
return {fields[1] or '-1', due}
