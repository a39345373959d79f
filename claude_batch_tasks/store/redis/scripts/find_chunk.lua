-- Find the chunk that holds the request at a position.
-- KEYS[1]  the list that says how many requests each chunk has
-- KEYS[2]  the list of chunks
-- ARGV[1]  the position
-- Returns {position of the chunk's first request, chunk}, without a chunk that is gone; nothing if the sizes are gone.
local position, first = tonumber(ARGV[1]), 0
for number, size in ipairs(redis.call('LRANGE', KEYS[1], 0, -1)) do
  local following = first + tonumber(size)
  if position < following then
    return {first, redis.call('LINDEX', KEYS[2], number - 1)}
  end
  first = following
end
return false
