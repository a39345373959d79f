-- Make a job of what was staged for it, unless there is one.
-- KEYS[1]   the job's hash
-- KEYS[2,3] where its index is staged, where it belongs
-- KEYS[4..] for each batch: its hash, then pairs: where a list of it is staged, where it belongs
-- ARGV[1]   seconds after which all of it expires
-- ARGV[2]   lists per batch
-- ARGV[3]   the job's record, as a JSON array: field, value, field, value, ...
-- ARGV[4..] each batch's record, likewise
-- Returns 1 if it was made, 0 if there is a job of that id.
if redis.call('EXISTS', KEYS[1]) == 1 then
  return 0
end
local ttl, lists, at = ARGV[1], tonumber(ARGV[2]), 4
local function move(staged, place)
  if redis.call('EXISTS', staged) == 1 then
    redis.call('RENAME', staged, place)
    redis.call('EXPIRE', place, ttl)
  end
end
move(KEYS[2], KEYS[3])
for number = 4, #ARGV do
  local batch = KEYS[at]
  redis.call('HSET', batch, unpack(cjson.decode(ARGV[number])))
  redis.call('EXPIRE', batch, ttl)
  at = at + 1
  for _ = 1, lists do
    move(KEYS[at], KEYS[at + 1])
    at = at + 2
  end
end
redis.call('HSET', KEYS[1], unpack(cjson.decode(ARGV[3])))
redis.call('EXPIRE', KEYS[1], ttl)
return 1
