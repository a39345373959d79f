-- Hand out units whose wait is over; each is handed out once.
-- KEYS[1]  the index of units that wait without a message
-- KEYS[2]  the index of due units, which tells if no message of them comes
-- KEYS[3]  the index of calls that are held back
-- ARGV[1]  how many at most
-- ARGV[2]  from how many batches in flight on one account a listing looks at all of them
-- ARGV[3]  seconds that are left to a listing before the next batch asks for one
-- Returns {units, when the next is due or nothing, now}.
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1000000
local text, later = string.format('%.3f', now), string.format('%.3f', now + tonumber(ARGV[3]))

-- Of many batches in flight one is handed out, and the listing that it makes spares the others theirs.
local function spared(member)
  local batch, job = string.match(member, '^(%d+)::(.*)$')
  local flights = batch and redis.call('HGET', 'claude_batch:{' .. job .. '}:batch:' .. batch, 'flights')
  if not flights or redis.call('HLEN', flights) < tonumber(ARGV[2]) then
    return false
  end
  -- One of a job that is over, past its deadline or its expiry makes no listing.
  local flight = cjson.decode(redis.call('HGET', flights, member) or '[]')
  local expires, deadline = tonumber(flight[3]) or math.huge, tonumber(flight[7]) or math.huge
  if math.min(expires, deadline) <= now or redis.call('HGET', 'claude_batch:{' .. job .. '}:job', 'state') ~= '"running"' then
    return false
  end
  local account = string.match(flights, ':account:([^:]+):')
  if tonumber(redis.call('ZSCORE', KEYS[3], account .. ':list') or '0') > now then
    return false
  end
  return not redis.call('SET', flights .. ':asked', '', 'NX', 'PX', math.ceil(tonumber(ARGV[3]) * 1000))
end

local found = {}
for _, member in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', text, 'LIMIT', 0, 1000)) do
  if #found >= tonumber(ARGV[1]) then
    break
  elseif spared(member) then
    redis.call('ZADD', KEYS[1], later, member)
    redis.call('ZADD', KEYS[2], 'XX', later, member)
  else
    redis.call('ZREM', KEYS[1], member)
    redis.call('ZADD', KEYS[2], 'XX', text, member)
    found[#found + 1] = member
  end
end
return {found, redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')[2] or '', text}
