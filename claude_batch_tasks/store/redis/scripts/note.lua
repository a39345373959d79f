-- Append to a job's history, of which the beginning and the end are kept, and list the job: one that an earlier release
-- submitted is in no list.
-- KEYS[1]  the job's hash
-- KEYS[2]  the history's beginning
-- KEYS[3]  its end
-- KEYS[4]  the list of all jobs
-- ARGV[1]  the entry
-- ARGV[2]  how many entries the beginning has
-- ARGV[3]  how many the end has
-- ARGV[4]  the job's id
local submitted_at = redis.call('HGET', KEYS[1], JOB.submitted_at)
if not submitted_at then
  return
end
redis.call('ZADD', KEYS[4], 'NX', submitted_at, ARGV[4])
local list = KEYS[2]
if redis.call('LLEN', list) >= tonumber(ARGV[2]) then
  list = KEYS[3]
end
local count = redis.call('RPUSH', list, ARGV[1])
if list == KEYS[3] and count > tonumber(ARGV[3]) then
  redis.call('LPOP', list)
  redis.call('HINCRBY', KEYS[1], JOB.forgotten, 1)
end
local left = redis.call('PTTL', KEYS[1])
if left > 0 then
  redis.call('PEXPIRE', list, left)
end
