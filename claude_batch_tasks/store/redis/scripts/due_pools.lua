-- Close pools that are due, and hand them out; each once, and again when nobody has sealed it.
-- KEYS[1]  the index of pools that are to be sealed
-- KEYS[2]  which pools are open
-- KEYS[3]  what the keys of pools begin with
-- ARGV[1]  how many at most
-- ARGV[2]  seconds after which one is handed out again; twice as many each time
-- ARGV[3]  how often they are doubled
-- Returns {pools, when the next is due or nothing, now}.
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1000000
local text = string.format('%.6f', now)
local found = {}
for _, job in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', text, 'LIMIT', 0, ARGV[1])) do
  local pool = KEYS[3] .. job .. POOL_KEY.hash
  local had = redis.call('HMGET', pool, POOL.state, POOL.key)
  if had[1] == POOL_STATE.open or had[1] == POOL_STATE.closed or had[1] == POOL_STATE.parked then
    if had[1] ~= POOL_STATE.closed then
      redis.call('HSET', pool, POOL.state, POOL_STATE.closed)
      if redis.call('HGET', KEYS[2], had[2]) == job then
        redis.call('HDEL', KEYS[2], had[2])
      end
    end
    local sent = redis.call('HINCRBY', pool, POOL.sent, 1)
    local again = tonumber(ARGV[2]) * 2 ^ math.min(sent - 1, tonumber(ARGV[3]))
    redis.call('ZADD', KEYS[1], string.format('%.6f', now + again), job)
    found[#found + 1] = job
  else
    redis.call('ZREM', KEYS[1], job)
  end
end
return {found, redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')[2] or '', text}
