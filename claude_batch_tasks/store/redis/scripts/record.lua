-- Change a unit's record, or only its lease, if the owner still holds the lease.
-- KEYS[1]   the hash the unit is kept in
-- KEYS[2]   the index of due units
-- KEYS[3]   the job's hash
-- KEYS[4]   the index of units that wait without a message
-- KEYS[5]   where the batches in flight on an account are listed, or the same as KEYS[4]
-- ARGV[1]   prefix of the unit's fields in its hash
-- ARGV[2]   what the index calls it
-- ARGV[3]   owner
-- ARGV[4]   seconds to renew the lease for, or "" to leave it
-- ARGV[5]   position to leave the unit at, giving the lease up, or "" to keep it
-- ARGV[6]   then: when its next message is due; "through:": none is, but one of the unit named after the colon, if any
-- ARGV[7]   "wait" if the unit then waits without a message, ARGV[6] seconds; or ""
-- ARGV[8]   how it is listed among the batches in flight meanwhile, or ""
-- ARGV[9..] field, value, field, value, ...
-- Returns 1 if it was done, and more if nothing is left to be done for the unit's batch: 1 and how many batches of the
-- job are through. 0 if the lease is somebody else's.
local key, prefix, member = KEYS[1], ARGV[1], ARGV[2]
if redis.call('HGET', key, prefix .. LEASE.owner) ~= ARGV[3] then
  return 0
end
local through = 0
for i = 9, #ARGV, 2 do
  local field, value = prefix .. ARGV[i], ARGV[i + 1]
  if field == BATCH.done and value == 'true' and redis.call('HEXISTS', KEYS[3], JOB.nonce) == 1 then
    local more = redis.call('HGET', key, field) == value and 0 or 1
    through = redis.call('HINCRBY', KEYS[3], JOB.through, more)
  end
  redis.call('HSET', key, field, value)
end
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1000000
if ARGV[4] ~= '' then
  local ends = string.format('%.3f', now + tonumber(ARGV[4]))
  redis.call('HSET', key, prefix .. LEASE.ends, ends)
  redis.call('ZADD', KEYS[2], ends, member)
end
if ARGV[5] ~= '' then
  redis.call('HSET', key, prefix .. LEASE.position, ARGV[5])
  redis.call('HDEL', key, prefix .. LEASE.owner, prefix .. LEASE.ends)
  local follower = string.match(ARGV[6], NEXT.through)
  if follower then
    redis.call('ZREM', KEYS[2], member)
    member = follower
    if follower ~= '' then
      -- That nothing came for the job while its batches were on their way is no sign that messages get lost.
      redis.call('HDEL', KEYS[3], JOB_LEASE.resent, JOB_LEASE.resent_at, JOB_LEASE.missed)
    end
  end
  if member ~= '' then
    local due = tonumber(ARGV[6]) or 0
    if ARGV[7] == NEXT.wait then
      due = now + due
    end
    due = string.format('%.3f', math.max(now, due))
    redis.call('ZADD', KEYS[2], due, member)
    if ARGV[7] == NEXT.wait then
      redis.call('ZADD', KEYS[4], due, member)
    end
    if ARGV[8] ~= '' then
      redis.call('HSET', KEYS[5], member, ARGV[8])
      redis.call('HSET', key, prefix .. LEASE.flights, KEYS[5])
    end
  end
end
return 1 + through
