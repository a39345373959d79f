-- Change fields of a job's record, if there still is one.
-- KEYS[1]   the job's hash
-- ARGV[1]   the state it must be in, or ""
-- ARGV[2..] field, value, field, value, ...
-- Returns 1 if it was done, 0 if the job is gone or in another state.
local state = redis.call('HGET', KEYS[1], JOB.state)
if not state or (ARGV[1] ~= '' and state ~= ARGV[1]) then
  return 0
end
redis.call('HSET', KEYS[1], unpack(ARGV, 2))
return 1
