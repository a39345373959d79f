-- An answer came to a call of the Messages API.
-- KEYS[1]  the pace
-- KEYS[2]  its calls in flight
-- KEYS[3]  the index of paused calls
-- ARGV[1]  what the calls in flight call it
-- ARGV[2]  what the paused calls call the pace
-- ARGV[3]  the mark it was sent with
-- ARGV[4]  "1" if it was refused for a passing reason
-- ARGV[5]  seconds in which no call is to be made, or ""
-- ARGV[6]  calls in flight at most
-- ARGV[7]  output tokens of the answer, or ""
-- ARGV[8..] name of a limit, how much a minute, how much is left, ...
local pace = KEYS[1]
redis.call('ZREM', KEYS[2], ARGV[1])
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1000000
if ARGV[5] ~= '' then
  redis.call('ZADD', KEYS[3], 'GT', now + tonumber(ARGV[5]), ARGV[2])
end

local sent, input, output = string.match(ARGV[3], MARK.totals)
local totals = redis.call('HMGET', pace, PACE.sent, PACE.input, PACE.output, PACE.synced, PACE.allowed, PACE.cut_at,
  PACE.usual_output)
if ARGV[7] ~= '' then
  local usual = tonumber(totals[7] or ARGV[7])
  usual = usual + (tonumber(ARGV[7]) - usual) / RULE.OUTPUT_SHARE
  redis.call('HSET', pace, PACE.usual_output, string.format('%.1f', usual))
end
-- The answer to a later call has said more than one to an earlier call can say.
if totals[1] and tonumber(sent) <= tonumber(totals[1]) and #ARGV > 7
    and tonumber(sent) >= tonumber(totals[4] or '0') then
  local since = {
    [LIMIT.requests] = tonumber(totals[1]) - tonumber(sent),
    [LIMIT.input_tokens] = tonumber(totals[2]) - tonumber(input),
    [LIMIT.output_tokens] = tonumber(totals[3]) - tonumber(output),
  }
  since[LIMIT.tokens] = since[LIMIT.input_tokens] + since[LIMIT.output_tokens]
  for i = 8, #ARGV, 3 do
    local name = ARGV[i]
    local left = tostring(tonumber(ARGV[i + 2]) - since[name])
    redis.call('HSET', pace, PACE.limit .. name, ARGV[i + 1], PACE.left .. name, left)
  end
  redis.call('HSET', pace, PACE.synced, sent, PACE.at, string.format('%.3f', now))
end

-- Twice as many in each round of answers until the first refusal, then one more; half as many after each refusal: once,
-- for all that were refused together.
local allowed = tonumber(totals[5] or RULE.FIRST_IN_FLIGHT)
if ARGV[4] ~= '1' then
  allowed = math.min(allowed + (totals[6] and 1 / allowed or 1), tonumber(ARGV[6]))
  redis.call('HDEL', pace, PACE.in_a_row)
elseif now > tonumber(totals[6] or '0') + RULE.REFUSED_TOGETHER then
  allowed = math.max(allowed / 2, 1)
  redis.call('HSET', pace, PACE.cut_at, string.format('%.3f', now))
  -- While nothing comes through, ever longer pauses: else each request would soon have been refused too often.
  local times = redis.call('HINCRBY', pace, PACE.in_a_row, 1)
  if times > 1 then
    redis.call('ZADD', KEYS[3], 'GT', now + math.min(2 ^ (times - 1), RULE.MAX_REFUSED_PAUSE), ARGV[2])
  end
end
redis.call('HSET', pace, PACE.allowed, string.format('%.3f', allowed))
redis.call('EXPIRE', pace, 3600)
return 1
