-- Put the rows of an attempt that were fetched again in the place of those that are gone, if their job is still there.
-- KEYS[1]  the job's hash
-- KEYS[2]  the rows as they were fetched
-- KEYS[3]  where they belong
-- KEYS[4]  in which piece each is
-- KEYS[5]  which deserve another chance
-- KEYS[6]  the attempt's index
-- KEYS[7]  which are in the next smaller batch
-- ARGV[1]  in which piece each is
-- ARGV[2]  which deserve another chance
-- ARGV[3]  which are in the next smaller batch
-- ARGV[4]  seconds until that expires if the job does not; "" if it is not known
-- ARGV[5..] part, entries, part, entries, ... of the index
-- Returns 1 if it was done.
if redis.call('HEXISTS', KEYS[1], JOB.nonce) == 0 or redis.call('EXISTS', KEYS[2]) == 0 then
  return 0
end
redis.call('RENAME', KEYS[2], KEYS[3])
redis.call('SET', KEYS[4], ARGV[1])
redis.call('SET', KEYS[5], ARGV[2])
if ARGV[4] ~= '' then
  redis.call('SET', KEYS[7], ARGV[3])
end
for at = 5, #ARGV, 2 do
  redis.call('HSET', KEYS[6], ARGV[at], ARGV[at + 1])
end
local left = redis.call('PTTL', KEYS[1])
for at = 3, #KEYS do
  if left > 0 then
    redis.call('PEXPIRE', KEYS[at], left)
  else
    redis.call('PERSIST', KEYS[at])
  end
end
if left <= 0 and ARGV[4] ~= '' then
  redis.call('EXPIRE', KEYS[7], ARGV[4])
end
return 1
