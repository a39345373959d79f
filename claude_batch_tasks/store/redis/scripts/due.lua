-- Hand out units whose wait is over; each is handed out once.
-- KEYS[1]  the index of units that wait without a message
-- KEYS[2]  the index of due units, which tells if no message of them comes
-- KEYS[3]  the index of paused calls
-- ARGV[1]  how many at most
-- Returns {units, when the next is due or nothing, now}.
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1000000
local text = string.format('%.3f', now)
local later = now + RULE.LONGEST_IN_BROKER

-- Whether a batch is to ask for a listing, one at a time of those of its account and queue.
local function asks(member, account, queue)
  local key = account .. KEY.asked
  local asked = redis.call('HMGET', key, queue .. ASKED.member, queue .. ASKED.at, queue .. ASKED.in_vain)
  local at, in_vain = tonumber(asked[2] or '0'), tonumber(asked[3] or '0')
  if in_vain >= RULE.MAX_VAIN_POLLS then
    return true
  elseif now < at + RULE.LONGEST_IN_BROKER then
    return false
  elseif asked[1] and tonumber(redis.call('ZSCORE', KEYS[2], asked[1]) or '0') ~= at then
    in_vain = in_vain + 1  -- it was taken, and has made no listing
  elseif asked[1] and now < at + RULE.UNCLAIMED_SECONDS then
    return false
  end
  redis.call('HSET', key, queue .. ASKED.member, member, queue .. ASKED.at, text, queue .. ASKED.in_vain, in_vain)
  redis.call('EXPIRE', key, 3600)
  return true
end

-- Of many batches in flight one is handed out, and the listing that it makes spares the others theirs: until when this
-- one is spared, or nothing.
local keys = string.match(KEYS[1], KEY.before_waiting)
local function spared(member)
  local batch, job = string.match(member, UNIT.of_batch)
  local flights = batch and redis.call('HGET', keys .. KEY.before_job_id .. job .. KEY.batch .. batch, BATCH.flights)
  if not flights then
    return nil
  end
  -- One of a job that is over, or past its deadline, makes no listing.
  local flight = cjson.decode(redis.call('HGET', flights, member) or '[]')
  local deadline = tonumber(flight[FLIGHT.deadline]) or math.huge
  local record = redis.call('HMGET', keys .. KEY.before_job_id .. job .. KEY.job, JOB.state, JOB.queue)
  if deadline <= now or record[1] ~= STATE.running then
    return nil
  end
  local account = string.match(flights, KEY.before_flights)
  local name = string.match(account, '([^:]+)$')
  local held = tonumber(redis.call('ZSCORE', KEYS[3], name) or '0')
  if held > now then
    return math.min(held, deadline)
  elseif redis.call('HLEN', flights) < RULE.LIST_CALL_FROM then
    return nil
  elseif tonumber(redis.call('ZSCORE', KEYS[3], name .. CALL.list) or '0') > now then
    return nil
  elseif redis.call('EXISTS', account .. KEY.listing) == 1 or not asks(member, account, record[2] or '') then
    return later
  end
  return nil
end

-- No more are out than keep workers busy: what is new need not wait behind all that is due.
local since = string.format('%.3f', now - RULE.UNCLAIMED_SECONDS)
local out = redis.call('ZCOUNT', KEYS[2], since, text) - redis.call('ZCOUNT', KEYS[1], since, text)
local limit = math.min(tonumber(ARGV[1]), math.max(RULE.MAX_UNCLAIMED_MESSAGES - out, 1))

local found = {}
for _, member in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', text, 'LIMIT', 0, 1000)) do
  if #found >= limit then
    break
  end
  local moment = spared(member)
  if moment then
    moment = string.format('%.3f', moment)
    redis.call('ZADD', KEYS[1], moment, member)
    redis.call('ZADD', KEYS[2], 'XX', moment, member)
  else
    redis.call('ZREM', KEYS[1], member)
    redis.call('ZADD', KEYS[2], 'XX', text, member)
    found[#found + 1] = member
  end
end
return {found, redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')[2] or '', text}
