-- Find what is stored of one request: its outcome of the Messages API, and the chunk that has its row.
-- KEYS[1]  the hash of outcomes
-- KEYS[2]  the map of chunks
-- KEYS[3]  the list of chunks of rows
-- ARGV[1]  what the hash calls its position
-- ARGV[2]  the position
-- ARGV[3]  how the bytes of the map's numbers are ordered, as Python says it
-- Returns {outcome, chunk}; false for what is not there.
local outcome = redis.call('HGET', KEYS[1], ARGV[1])
local number = redis.call('GETRANGE', KEYS[2], 4 * ARGV[2], 4 * ARGV[2] + 3)
if #number < 4 then
  return {outcome, false}
end
if ARGV[3] == BYTE_ORDER.big then
  number = string.reverse(number)
end
local first, second, third, fourth = string.byte(number, 1, 4)
return {outcome, redis.call('LINDEX', KEYS[3], first + 256 * (second + 256 * (third + 256 * fourth)))}
