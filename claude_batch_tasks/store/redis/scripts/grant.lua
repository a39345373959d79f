-- Reserve a share of a job's fallback requests for one batch, once.
-- KEYS[1]  the job's hash
-- KEYS[2]  the batch's hash
-- ARGV[1]  requests wanted
-- ARGV[2]  the job's limit
-- Returns the number granted; asked again, the same number.
if redis.call('HEXISTS', KEYS[1], JOB.nonce) == 0 or redis.call('HEXISTS', KEYS[2], BATCH.count) == 0 then
  return 0
end
local had = redis.call('HGET', KEYS[2], BATCH.granted)
if had and had ~= 'null' then
  return tonumber(had)
end
local used = tonumber(redis.call('HGET', KEYS[1], JOB.fallback_granted) or '0')
local granted = math.max(0, math.min(tonumber(ARGV[1]), tonumber(ARGV[2]) - used))
redis.call('HSET', KEYS[1], JOB.fallback_granted, tostring(used + granted))
redis.call('HSET', KEYS[2], BATCH.granted, tostring(granted))
return granted
