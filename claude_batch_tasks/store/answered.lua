-- An answer came to a call of the Messages API.
-- KEYS[1]  the pace
-- KEYS[2]  its calls in flight
-- KEYS[3]  the index of calls that are held back
-- ARGV[1]  what the calls in flight call it
-- ARGV[2]  what the calls that are held back call the pace
-- ARGV[3]  the mark it was sent with
-- ARGV[4]  "1" if it was refused for a passing reason
-- ARGV[5]  seconds in which no call is to be made, or ""
-- ARGV[6]  calls in flight at most
-- ARGV[7]  calls in flight at first
-- ARGV[8]  output tokens of the answer, or ""
-- ARGV[9..] name of a limit, how much a minute, how much is left, ...
local pace = KEYS[1]
redis.call('ZREM', KEYS[2], ARGV[1])
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1000000
if ARGV[5] ~= '' then
  redis.call('ZADD', KEYS[3], 'GT', now + tonumber(ARGV[5]), ARGV[2])
end

local sent, input, output = string.match(ARGV[3], '^(%S+) (%S+) (%S+)$')
local totals = redis.call('HMGET', pace, 'sent', 'input', 'output', 'synced', 'allowed', 'cut_at', 'usual_output')
if ARGV[8] ~= '' then
  local usual = tonumber(totals[7] or ARGV[8])
  redis.call('HSET', pace, 'usual_output', string.format('%.1f', usual + (tonumber(ARGV[8]) - usual) / 10))
end
-- The answer to a later call has said more than one to an earlier call can say.
if totals[1] and tonumber(sent) <= tonumber(totals[1]) and #ARGV > 8 and tonumber(sent) >= tonumber(totals[4] or '0') then
  local since = {
    requests = tonumber(totals[1]) - tonumber(sent),
    ['input-tokens'] = tonumber(totals[2]) - tonumber(input),
    ['output-tokens'] = tonumber(totals[3]) - tonumber(output),
  }
  since.tokens = since['input-tokens'] + since['output-tokens']
  for i = 9, #ARGV, 3 do
    local name = ARGV[i]
    redis.call('HSET', pace, 'limit:' .. name, ARGV[i + 1], 'left:' .. name, tostring(tonumber(ARGV[i + 2]) - since[name]))
  end
  redis.call('HSET', pace, 'synced', sent, 'at', string.format('%.3f', now))
end

-- Twice as many in each round of answers until the first refusal, then one more; half as many after each refusal: once,
-- for all that were refused together.
local allowed = tonumber(totals[5] or ARGV[7])
if ARGV[4] ~= '1' then
  allowed = math.min(allowed + (totals[6] and 1 / allowed or 1), tonumber(ARGV[6]))
  redis.call('HDEL', pace, 'in_a_row')
elseif now > tonumber(totals[6] or '0') + 1 then
  allowed = math.max(allowed / 2, 1)
  redis.call('HSET', pace, 'cut_at', string.format('%.3f', now))
  -- While nothing comes through, ever longer pauses: else each request would soon have been refused too often.
  local times = redis.call('HINCRBY', pace, 'in_a_row', 1)
  if times > 1 then
    redis.call('ZADD', KEYS[3], 'GT', now + math.min(2 ^ (times - 1), 30), ARGV[2])
  end
end
redis.call('HSET', pace, 'allowed', string.format('%.3f', allowed))
redis.call('EXPIRE', pace, 3600)
return 1
