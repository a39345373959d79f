-- Requests are to be sent through the Messages API, unless they are on their way or have an outcome already.
-- KEYS[1]   those that wait to be sent, by when they are due
-- KEYS[2]   those that were sent
-- KEYS[3]   the batch's outcomes
-- ARGV[1..] positions
for _, place in ipairs(ARGV) do
  if redis.call('HEXISTS', KEYS[2], place) == 0 and redis.call('HEXISTS', KEYS[3], place) == 0 then
    redis.call('ZADD', KEYS[1], 'NX', 0, place)
  end
end
return 1
