-- Begin a job's next batch in the place of one that is through, once for each.
-- KEYS[1]  the job's hash
-- KEYS[2]  the hash of the batch that is through
-- KEYS[3]  the index of due units
-- ARGV[1]  what the index calls a batch of the job, after its number
-- Returns the number of the next batch; nothing if there is none, or if one was begun in this place already.
local job = redis.call('HMGET', KEYS[1], JOB.admitted, JOB.batches)
if not job[2] or redis.call('HGET', KEYS[2], BATCH.made_room) == 'true'
    or redis.call('HEXISTS', KEYS[2], BATCH.count) == 0 then
  return false
end
redis.call('HSET', KEYS[2], BATCH.made_room, 'true')
local admitted = tonumber(job[1] or '0')
if admitted >= tonumber(job[2]) then
  return false
end
redis.call('HSET', KEYS[1], JOB.admitted, tostring(admitted + 1))
redis.call('ZADD', KEYS[3], redis.call('TIME')[1], admitted .. ARGV[1])
return admitted
