-- Change fields of a job's record, if there still is one.
-- KEYS[1]  the job's hash
-- ARGV     field, value, field, value, ...
-- Returns 1 if it was done, 0 if the job is gone.
if redis.call('EXISTS', KEYS[1]) == 0 then
  return 0
end
redis.call('HSET', KEYS[1], unpack(ARGV))
return 1
