-- Change a unit's record, or only its lease, if the owner still holds the lease.
-- KEYS[1]   the hash the unit is kept in
-- ARGV[1]   prefix of the unit's fields in it
-- ARGV[2]   owner
-- ARGV[3]   seconds to renew the lease for, or "" to leave it
-- ARGV[4]   position to leave the unit at, giving the lease up, or "" to keep it
-- ARGV[5..] field, value, field, value, ...
-- Returns 1 if it was done, 0 if the lease is somebody else's.
local key, prefix = KEYS[1], ARGV[1]
if redis.call('HGET', key, prefix .. 'owner') ~= ARGV[2] then
  return 0
end
for i = 5, #ARGV, 2 do
  redis.call('HSET', key, prefix .. ARGV[i], ARGV[i + 1])
end
if ARGV[3] ~= '' then
  local time = redis.call('TIME')
  local now = tonumber(time[1]) + tonumber(time[2]) / 1000000
  redis.call('HSET', key, prefix .. 'until', string.format('%.3f', now + tonumber(ARGV[3])))
end
if ARGV[4] ~= '' then
  redis.call('HSET', key, prefix .. 'position', ARGV[4])
  redis.call('HDEL', key, prefix .. 'owner', prefix .. 'until')
end
return 1
