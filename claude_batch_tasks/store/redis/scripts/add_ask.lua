-- Put an ask into the open pool that takes it, or into one that is opened for it.
-- KEYS[1]   which pools are open
-- KEYS[2]   the index of pools that are to be sealed
-- KEYS[3]   the list of pools that are not sealed yet
-- KEYS[4]   where the ask is
-- KEYS[5]   what the keys of costs begin with
-- KEYS[6]   what the keys of pools begin with
-- ARGV[1]   what asks of one pool have in common
-- ARGV[2]   the id of the pool that may be opened
-- ARGV[3]   its record, in JSON
-- ARGV[4,5] when it is due at the latest, or 0; its deadline, or ""
-- ARGV[6]   the ask, as its pool has it
-- ARGV[7]   bytes of it in a create
-- ARGV[8]   asks in a pool at most
-- ARGV[9]   bytes in a pool at most
-- ARGV[10]  seconds for which a pool waits at most
-- ARGV[11]  seconds after which it is forgotten where the ask is
-- ARGV[12]  what the ask reserves of the cost limit
-- ARGV[13]  the limit, or ""
-- ARGV[14]  seconds of a window
-- ARGV[15]  whose limit it is
-- ARGV[16]  before when the pool is never sealed, or 0
-- ARGV[17..] field, value, field, value, ... of where it is
-- Returns {1, pool, position, now}; {0, fields of its place}: it was there; {-1, what is left, seconds until the next
-- window}: the limit leaves no room for it.
local known = redis.call('HMGET', KEYS[4], PLACE.job_id, PLACE.position, PLACE.asked_at, PLACE.state, PLACE.reserved)
if known[1] then
  return {0, known}
end
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1000000
local text = string.format('%.6f', now)

local budget = nil
if ARGV[13] ~= '' then
  local limit, reserved, window = tonumber(ARGV[13]), tonumber(ARGV[12]), tonumber(ARGV[14])
  local start = math.floor(now / window) * window
  budget = ARGV[14] .. string.format(WINDOW.start, start) .. ARGV[15]
  local left = limit - tonumber(redis.call('GET', KEYS[5] .. budget) or '0')
  if reserved > left then
    return {-1, string.format('%.0f', left), string.format('%.3f', start + window - now)}
  end
  redis.call('INCRBY', KEYS[5] .. budget, ARGV[12])
  redis.call('EXPIRE', KEYS[5] .. budget, math.ceil(start + window - now) + 60)
end

local size, most, room = tonumber(ARGV[7]), tonumber(ARGV[8]), tonumber(ARGV[9])
local due = tonumber(ARGV[4])
if due == 0 then
  due = now + tonumber(ARGV[10])
end

local at = string.format('%.6f', math.max(now, tonumber(ARGV[16])))
local function close(job)
  redis.call('HSET', KEYS[6] .. job .. POOL_KEY.hash, POOL.state, POOL_STATE.closed, POOL.due_at, at)
  redis.call('ZADD', KEYS[2], at, job)
end

-- What is too large for any pool is one of its own, and leaves the open one as it is.
local alone = size > room
local job, count, bytes = nil, 0, 0
local open = not alone and redis.call('HGET', KEYS[1], ARGV[1])
if open then
  local pool = KEYS[6] .. open .. POOL_KEY.hash
  local had = redis.call('HMGET', pool, POOL.state, POOL.count, POOL.size, POOL.due_at, POOL.deadline)
  if had[1] == POOL_STATE.open then
    count, bytes = tonumber(had[2]), tonumber(had[3])
    if count < most and bytes + size <= room then
      job = open
      if due < tonumber(had[4]) then
        redis.call('HSET', pool, POOL.due_at, string.format('%.6f', due))
        redis.call('ZADD', KEYS[2], string.format('%.6f', due), job)
      end
      if ARGV[5] ~= '' and (had[5] == '' or tonumber(ARGV[5]) < tonumber(had[5])) then
        redis.call('HSET', pool, POOL.deadline, ARGV[5])
      end
    else
      close(open)
      redis.call('HDEL', KEYS[1], ARGV[1])
      count, bytes = 0, 0
    end
  end
end
local full = alone or count + 1 >= most or bytes + size >= room
if not job then
  job = ARGV[2]
  redis.call('HSET', KEYS[6] .. job .. POOL_KEY.hash, POOL.record, ARGV[3], POOL.state, POOL_STATE.open, POOL.key, ARGV[1],
    POOL.withdrawn, 0, POOL.opened_at, text, POOL.due_at, string.format('%.6f', due), POOL.deadline, ARGV[5])
  redis.call('ZADD', KEYS[3], text, job)
  redis.call('ZADD', KEYS[2], string.format('%.6f', due), job)
  if not full then
    redis.call('HSET', KEYS[1], ARGV[1], job)
  end
end
local pool = KEYS[6] .. job
local position = redis.call('RPUSH', pool .. POOL_KEY.asks, ARGV[6]) - 1
redis.call('HSET', pool .. POOL_KEY.hash, POOL.count, position + 1, POOL.size, bytes + size)
if full then
  close(job)
  if job == open then
    redis.call('HDEL', KEYS[1], ARGV[1])
  end
end
redis.call('HSET', KEYS[4], PLACE.job_id, job, PLACE.position, position, PLACE.asked_at, text, unpack(ARGV, 17))
if budget then
  redis.call('HSET', KEYS[4], PLACE.budget, budget)
end
redis.call('EXPIRE', KEYS[4], ARGV[11] + math.ceil(math.max(due - now, 0)))
return {1, job, position, text}
