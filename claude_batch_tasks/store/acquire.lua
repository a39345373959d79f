-- Take the lease of a unit for one message.
-- KEYS[1]  the hash the unit is kept in
-- KEYS[2]  the hash without which the unit is gone
-- ARGV[1]  prefix of the unit's fields in it
-- ARGV[2]  position of the message
-- ARGV[3]  owner
-- ARGV[4]  seconds the lease lasts
-- Returns {state, remaining milliseconds}; state is taken, taken_over, busy, stale or gone.
local key, prefix, position, owner = KEYS[1], ARGV[1], tonumber(ARGV[2]), ARGV[3]
if redis.call('EXISTS', KEYS[2]) == 0 then
  return {'gone', 0}
end
local fields = redis.call('HMGET', key, prefix .. 'position', prefix .. 'owner', prefix .. 'until')
local current, holder, expiry = tonumber(fields[1] or '-1'), fields[2], tonumber(fields[3] or '0')
if position < current then
  return {'stale', 0}
end
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1000000
local state = 'taken'
if holder and position == current and holder ~= owner then
  if expiry > now then
    return {'busy', math.ceil((expiry - now) * 1000)}
  end
  state = 'taken_over'
end
redis.call('HSET', key, prefix .. 'position', ARGV[2], prefix .. 'owner', owner,
           prefix .. 'until', string.format('%.3f', now + tonumber(ARGV[4])))
return {state, 0}
