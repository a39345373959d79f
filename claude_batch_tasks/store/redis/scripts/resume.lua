-- Take a job that has ended up again: change its record and those of batches, which then wait at the positions they are given.
-- KEYS[1]   the job's hash
-- KEYS[2]   the index of due units
-- KEYS[3]   the index of units that wait without a message
-- KEYS[4..] the hashes of batches; then all that the job has stored, which is to expire no more
-- ARGV[1]   the job's changes, as a JSON array: field, value, field, value, ...
-- ARGV[2..] for each batch: what the indices call it, or "" if it is not its turn yet; then its changes, likewise
-- Returns 1 if it was done, 0 if the job has not ended (or does so no more), or was revoked.
local state = redis.call('HGET', KEYS[1], JOB.state)
if state ~= STATE.failed and state ~= STATE.completed and state ~= STATE.canceled then
  return 0
end
for at = 4, 3 + (#ARGV - 1) / 2 do
  -- The job itself is in the place of a batch if only its end is left.
  if KEYS[at] ~= KEYS[1] and redis.call('HEXISTS', KEYS[at], BATCH.count) == 0 then
    return 0
  end
end
redis.call('HSET', KEYS[1], unpack(cjson.decode(ARGV[1])))
redis.call('HDEL', KEYS[1], JOB_LEASE.position, JOB_LEASE.owner, JOB_LEASE.ends, JOB_LEASE.step_failures,
  JOB_LEASE.step_failure)
redis.call('HDEL', KEYS[1], JOB_LEASE.resent, JOB_LEASE.resent_at, JOB_LEASE.missed)
local now = redis.call('TIME')[1]
local batches = (#ARGV - 1) / 2
for at = 4, 3 + batches do
  local member, changes = ARGV[2 * at - 6], ARGV[2 * at - 5]
  if redis.call('HGET', KEYS[at], BATCH.done) == 'true' then
    redis.call('HINCRBY', KEYS[1], JOB.through, -1)
  end
  redis.call('HDEL', KEYS[at], LEASE.owner, LEASE.ends, LEASE.resent, LEASE.resent_at, LEASE.missed,
    LEASE.step_failures, LEASE.step_failure)
  redis.call('HSET', KEYS[at], unpack(cjson.decode(changes)))
  if member ~= '' then
    redis.call('ZADD', KEYS[2], now, member)
    redis.call('ZADD', KEYS[3], now, member)
  end
end
for at = 4 + batches, #KEYS do
  redis.call('PERSIST', KEYS[at])
end
return 1
