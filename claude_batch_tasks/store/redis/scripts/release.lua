-- Have a parked pool sealed now, with another record.
-- KEYS[1]  the pool
-- KEYS[2]  the index of pools that are to be sealed
-- ARGV[1]  its id
-- ARGV[2]  its record, in JSON
-- ARGV[3]  its deadline, or ""
if redis.call('HGET', KEYS[1], POOL.state) == POOL_STATE.parked then
  local time = redis.call('TIME')
  local now = string.format('%.6f', tonumber(time[1]) + tonumber(time[2]) / 1000000)
  redis.call('HSET', KEYS[1], POOL.record, ARGV[2], POOL.deadline, ARGV[3], POOL.state, POOL_STATE.closed, POOL.due_at, now)
  redis.call('ZADD', KEYS[2], now, ARGV[1])
end
