-- Say whose a batch of Anthropic's is, in one with the record of the batch that says so.
-- KEYS[1]   the hash of the batch of ours
-- KEYS[2]   where it is written whose the batch of Anthropic's is
-- ARGV[1]   take: unless it is another's; force: whosever it is; release: it is not this one's; or, to take it from
--           somebody who is known to hold nothing: that unit
-- ARGV[2]   owner of the lease
-- ARGV[3]   what to write: the unit
-- ARGV[4]   seconds it is kept
-- ARGV[5..] field, value, field, value, ... of the record, changed only if it is done
-- Returns whose it is (after a release: this one's name); nothing if the lease is somebody else's.
if redis.call('HGET', KEYS[1], LEASE.owner) ~= ARGV[2] then
  return false
end
local holder = redis.call('GET', KEYS[2])
if ARGV[1] ~= CLAIM.force and ARGV[1] ~= CLAIM.release and holder and holder ~= ARGV[3] and holder ~= ARGV[1] then
  return holder
end
if ARGV[1] ~= CLAIM.release then
  redis.call('SET', KEYS[2], ARGV[3], 'EX', ARGV[4])
elseif holder == ARGV[3] then
  redis.call('DEL', KEYS[2])
end
for i = 5, #ARGV, 2 do
  redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1])
end
return ARGV[3]
