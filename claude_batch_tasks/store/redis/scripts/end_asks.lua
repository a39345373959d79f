-- Record how asks of a job ended, and tell those who listen.
-- KEYS[1]  the job's hash
-- KEYS[2]  of which of its requests the ask has ended
-- KEYS[3]  what the keys of asks begin with
-- ARGV[1]  seconds after which it is forgotten how they ended
-- ARGV[2]  1: they have ended for good
-- ARGV[3]  the job
-- ARGV[4]  the name of the channel
-- ARGV[5]  the ids, in JSON
-- ARGV[6..] position, id, state of each
local now = redis.call('TIME')[1]
local stands = redis.call('HEXISTS', KEYS[1], JOB.nonce) == 1
for at = 6, #ARGV, 3 do
  local position, place = ARGV[at], KEYS[3] .. ARGV[at + 1]
  local ended = 0
  if stands and ARGV[2] == '1' then
    ended = redis.call('SETBIT', KEYS[2], position, 1)
  elseif stands then
    ended = redis.call('GETBIT', KEYS[2], position)
  end
  local job = redis.call('HGET', place, PLACE.job_id)
  if not job then
    redis.call('HSET', place, PLACE.job_id, ARGV[3], PLACE.position, position, PLACE.asked_at, now)
    job = ARGV[3]
  end
  if ended == 0 and job == ARGV[3] then
    redis.call('HSET', place, PLACE.state, ARGV[at + 2])
    if ARGV[2] == '1' then
      -- What followed it was sent, and may be the prompt of another.
      redis.call('HDEL', place, PLACE.canvas, PLACE.headers)
    end
    redis.call('EXPIRE', place, ARGV[1])
  end
end
-- Whose user may not publish is one whose listeners ask now and then.
redis.pcall('PUBLISH', ARGV[4], ARGV[5])
-- As in the script that seals pools.
local left = redis.call('PTTL', KEYS[1])
if left > 0 then
  redis.call('PEXPIRE', KEYS[2], left)
elseif redis.call('PTTL', KEYS[2]) == -1 then
  redis.call('EXPIRE', KEYS[2], RULE.RETENTION)
end
