-- Give a field of a job's record a value if it has none.
-- KEYS[1]  the job's hash
-- ARGV[1]  field
-- ARGV[2]  value
-- Returns the value it has.
local had = redis.call('HGET', KEYS[1], ARGV[1])
if (had and had ~= 'null') or redis.call('HEXISTS', KEYS[1], JOB.nonce) == 0 then
  return had or 'null'
end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
return ARGV[2]
