-- Begin to make a job of a closed pool, from when no ask can be taken out of it, or record that it is one, or that none
-- could be made.
-- KEYS[1]  the pool
-- KEYS[2]  the index of pools that are to be sealed
-- KEYS[3]  the list of pools that are not sealed yet
-- KEYS[4]  its asks
-- KEYS[5]  the job's hash
-- ARGV[1]  the pool's id
-- ARGV[2]  1: it is one; -1: none could be made
-- Returns how often none could be made, if that is what is recorded.
local state = redis.call('HGET', KEYS[1], POOL.state)
if state ~= POOL_STATE.closed and not (state == POOL_STATE.open and ARGV[2] == '1') then
  return
end
if ARGV[2] == '-1' then
  redis.call('HINCRBY', KEYS[1], POOL.sealing, -1)
  return redis.call('HINCRBY', KEYS[1], POOL.failures, 1)
elseif ARGV[2] ~= '1' then
  redis.call('HINCRBY', KEYS[1], POOL.sealing, 1)
  return
end
redis.call('HSET', KEYS[1], POOL.state, POOL_STATE.sealed)
redis.call('ZREM', KEYS[2], ARGV[1])
redis.call('ZREM', KEYS[3], ARGV[1])
-- A job that is over expires, and this with it. A worker of an earlier release that ends the job does not know these
-- keys: they expire by themselves, when the batches are gone as well.
local left = redis.call('PTTL', KEYS[5])
for _, key in ipairs({KEYS[1], KEYS[4]}) do
  if left > 0 then
    redis.call('PEXPIRE', key, left)
  else
    redis.call('EXPIRE', key, RULE.RETENTION)
  end
end
