-- Put a record in the place of a batch's that is gone, and count the job's batches that are done anew.
-- KEYS[1]   the job's hash
-- KEYS[2]   the hash of the batch
-- KEYS[3]   the index of due units
-- KEYS[4..] the hashes of all the job's batches
-- ARGV[1]   the record, as a JSON array: field, value, field, value, ...
-- ARGV[2]   what the index calls the job
-- Returns 1 if it was done, 0 if the batch has its record or the job is gone.
if redis.call('HEXISTS', KEYS[1], JOB.nonce) == 0 or redis.call('HEXISTS', KEYS[2], BATCH.count) == 1 then
  return 0
end
redis.call('DEL', KEYS[2])
redis.call('HSET', KEYS[2], unpack(cjson.decode(ARGV[1])))
local done = 0
for at = 4, #KEYS do
  if redis.call('HGET', KEYS[at], BATCH.done) == 'true' then
    done = done + 1
  end
end
redis.call('HSET', KEYS[1], JOB.through, tostring(done))
local left = redis.call('PTTL', KEYS[1])
if left > 0 then
  redis.call('PEXPIRE', KEYS[2], left)
end
if redis.call('HGET', KEYS[1], JOB.state) == STATE.running then
  -- Its chain has ended with its record: the job's last message is missed, and sent.
  redis.call('ZADD', KEYS[3], redis.call('TIME')[1], ARGV[2])
end
return 1
