-- Have a request to send through the Messages API, if everything lets it be sent now.
-- KEYS[1]   the batch's requests that wait to be sent, by when they are due
-- KEYS[2]   those that were sent
-- KEYS[3]   the batch's outcomes
-- KEYS[4]   the job's hash
-- KEYS[5]   the job's money
-- KEYS[6]   the pace: what calls have in common that are limited together
-- KEYS[7]   its calls in flight, by until when they count as such
-- KEYS[8]   the index of paused calls
-- KEYS[9]   the lanes of the batch
-- ARGV[1]   the request's position
-- ARGV[2]   the lane
-- ARGV[3]   what the calls in flight call it
-- ARGV[4]   what the paused calls call the pace
-- ARGV[5]   input tokens
-- ARGV[6,7] what it costs at least, and at most; "" if that is not known
-- ARGV[8]   seconds for which it counts as in flight
-- ARGV[9]   calls in flight at most
-- ARGV[10]  what the job's Messages calls may cost, or ""
-- ARGV[11]  what the job may cost, or ""
-- ARGV[12]  who must still have the lane
-- Returns {state, milliseconds, mark}.
local place, pace = ARGV[1], KEYS[6]
if redis.call('HGET', KEYS[9], ARGV[2] .. LANE_LEASE.owner) ~= ARGV[12] then
  return {TAKEN.taken_over, 0, ''}
end
if redis.call('HEXISTS', KEYS[4], JOB.nonce) == 0 or not redis.call('ZSCORE', KEYS[1], place) then
  return {TAKEN.gone, 0, ''}
elseif redis.call('HEXISTS', KEYS[2], place) == 1 or redis.call('HEXISTS', KEYS[3], place) == 1 then
  redis.call('ZREM', KEYS[1], place)
  return {TAKEN.gone, 0, ''}
end
local job = redis.call('HMGET', KEYS[4], JOB.stopped, JOB.cancel_requested, JOB.state)
if job[1] and job[1] ~= 'null' then
  return {TAKEN.stopped, 0, ''}
elseif job[2] == 'true' or job[3] ~= STATE.running then
  return {TAKEN.canceled, 0, ''}
end
local limited = ARGV[10] ~= '' or ARGV[11] ~= ''
if limited and ARGV[7] == '' then
  return {TAKEN.price, 0, ''}
end

local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1000000
local function wait(seconds)
  return {TAKEN.wait, math.ceil(seconds * 1000), ''}
end

local held = tonumber(redis.call('ZSCORE', KEYS[8], ARGV[4]) or '0')
if held > now then
  return wait(held - now)
end
redis.call('ZREMRANGEBYSCORE', KEYS[7], '-inf', now)
local in_flight = redis.call('ZCARD', KEYS[7])
local known = {}
local fields = redis.call('HGETALL', pace)
for i = 1, #fields, 2 do
  known[fields[i]] = tonumber(fields[i + 1])
end
local unsure = now > (known[PACE.at] or 0) + RULE.REFILL
if in_flight >= math.min(math.floor(known[PACE.allowed] or RULE.FIRST_IN_FLIGHT), tonumber(ARGV[9])) then
  return wait(RULE.SLOT_WAIT)
end

-- What is left of each limit, by the last answer, less what was sent after that. When nothing seems left and no answer
-- is on its way that could say more, one call finds out, after the time in which as much comes in.
local input, output = tonumber(ARGV[5]), known[PACE.usual_output] or 0
local needs = {
  [LIMIT.requests] = 1,
  [LIMIT.tokens] = input + output,
  [LIMIT.input_tokens] = input,
  [LIMIT.output_tokens] = output,
}
local pause = 0
for name, need in pairs(needs) do
  local left, limit = known[PACE.left .. name], known[PACE.limit .. name]
  -- What is in the cache counts for nothing, so that more may be let through than seems to fit at all.
  if left and left < math.min(need, limit) and not unsure then
    pause = math.max(pause, RULE.REFILL * math.min(need, limit) / math.max(limit, 1))
  end
end
if pause > 0 and in_flight > 0 then
  return wait(pause)
elseif pause > 0 and now < (known[PACE.at] or 0) + pause then
  return wait(known[PACE.at] + pause - now)
end

if limited then
  if money_lost(KEYS[5], KEYS[4]) then
    return {TAKEN.lost, 0, ''}
  end
  local least, most = tonumber(ARGV[6]), tonumber(ARGV[7])
  local a = affordable(KEYS[5], MONEY.fallback, ARGV[10], least, most)
  local b = affordable(KEYS[5], MONEY.all, ARGV[11], least, most)
  if a == BUDGET.no or b == BUDGET.no then
    return {TAKEN.budget, 0, ''}
  elseif a == BUDGET.wait or b == BUDGET.wait then
    return {TAKEN.reserved, RULE.RESERVED_WAIT * 1000, ''}
  end
end

for name, need in pairs(needs) do
  if known[PACE.left .. name] then
    redis.call('HINCRBYFLOAT', pace, PACE.left .. name, -need)
  end
end
local mark = {
  redis.call('HINCRBY', pace, PACE.sent, 1),
  redis.call('HINCRBYFLOAT', pace, PACE.input, input),
  redis.call('HINCRBYFLOAT', pace, PACE.output, output),
}
redis.call('EXPIRE', pace, 3600)
redis.call('ZADD', KEYS[7], now + tonumber(ARGV[8]), ARGV[3])
redis.call('EXPIRE', KEYS[7], 3600)
if limited then
  begin_money(KEYS[5], KEYS[4])
  reserve(KEYS[5], MONEY.fallback, ARGV[7])
  reserve(KEYS[5], MONEY.all, ARGV[7])
end
redis.call('ZREM', KEYS[1], place)
redis.call('HSET', KEYS[2], place, ARGV[2] .. ' ' .. (limited and ARGV[7] or ''))
return {TAKEN.taken, 0, table.concat(mark, ' ')}
