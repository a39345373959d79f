-- Store a request's final outcome, if it has none and its job is still there.
-- KEYS[1]  the batch's outcomes
-- KEYS[2]  the job's hash
-- ARGV[1]  the request's position
-- ARGV[2]  the outcome
-- Returns 1 if it was stored.
if redis.call('EXISTS', KEYS[2]) == 0 then
  return 0
end
local stored = redis.call('HSETNX', KEYS[1], ARGV[1], ARGV[2])
-- A job that is over (revoked, most likely) expires, and this with it.
local left = redis.call('PTTL', KEYS[2])
if left > 0 then
  redis.call('PEXPIRE', KEYS[1], left)
end
return stored
