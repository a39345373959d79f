-- Make a job of what was staged for it, unless there is one.
-- KEYS[1]   the job's hash
-- KEYS[2,3] where its index is staged, where it belongs
-- KEYS[4]   the list of all jobs
-- KEYS[5]   what says that it was made and deleted before, if it must not be made again; else the job's hash
-- KEYS[6..] for each batch: its hash, then pairs: where a list of it is staged, where it belongs
-- ARGV[1]   seconds after which all of it expires
-- ARGV[2]   lists per batch; 0: nothing was staged, and there is no index
-- ARGV[3]   the job's id
-- ARGV[4]   when it was submitted
-- ARGV[5]   the job's record, as a JSON array: field, value, field, value, ...
-- ARGV[6..] each batch's record, likewise
-- Returns 1 if it was made, 0 if there is a job of that id, or was, -1 if some of what was staged has expired.
if redis.call('EXISTS', KEYS[1], KEYS[5]) > 0 then
  return 0
end
local ttl, lists, at = ARGV[1], tonumber(ARGV[2]), 6
local function staged()
  if redis.call('EXISTS', KEYS[2]) == 0 then
    return false
  end
  for key = 6, #KEYS, 1 + 2 * lists do
    for list = key + 1, key + 2 * lists, 2 do
      if redis.call('EXISTS', KEYS[list]) == 0 then
        return false
      end
    end
  end
  return true
end
if lists > 0 and not staged() then
  return -1
end
local function move(from, to)
  redis.call('RENAME', from, to)
  redis.call('EXPIRE', to, ttl)
end
if lists > 0 then
  move(KEYS[2], KEYS[3])
end
for number = 6, #ARGV do
  local batch = KEYS[at]
  redis.call('HSET', batch, unpack(cjson.decode(ARGV[number])))
  redis.call('EXPIRE', batch, ttl)
  at = at + 1
  for _ = 1, lists do
    move(KEYS[at], KEYS[at + 1])
    at = at + 2
  end
end
redis.call('HSET', KEYS[1], unpack(cjson.decode(ARGV[5])))
redis.call('EXPIRE', KEYS[1], ttl)
redis.call('ZADD', KEYS[4], ARGV[4], ARGV[3])
return 1
