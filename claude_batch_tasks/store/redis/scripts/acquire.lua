-- Take the lease of a unit for one message.
-- KEYS[1]  the hash the unit is kept in
-- KEYS[2]  the hash without which the unit is gone
-- KEYS[3]  the index of due units
-- KEYS[4]  by how much messages are late these days, seconds
-- KEYS[5]  the index of units that wait without a message
-- ARGV[1]  prefix of the unit's fields in its hash
-- ARGV[2]  what the index calls it
-- ARGV[3]  position of the message
-- ARGV[4]  owner
-- ARGV[5]  seconds the lease lasts
-- Returns {state, remaining milliseconds, now, how often in a row the step was broken off, by what the last time};
-- state is taken, taken_over, busy, stale or gone.
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1000000
local text = string.format('%.6f', now)
local key, prefix, member, position, owner = KEYS[1], ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4]
-- Not EXISTS: what an earlier release wrote into a hash that had been evicted is no record.
if redis.call('HEXISTS', KEYS[2], JOB.nonce) == 0 and redis.call('HEXISTS', KEYS[2], BATCH.count) == 0 then
  redis.call('ZREM', KEYS[3], member)
  redis.call('ZREM', KEYS[5], member)
  return {LEASED.gone, 0, text, 0, ''}
end
local fields = redis.call('HMGET', key, prefix .. LEASE.position, prefix .. LEASE.owner, prefix .. LEASE.ends)
local current, holder, expiry = tonumber(fields[1] or '-1'), fields[2], tonumber(fields[3] or '0')
if position < current then
  return {LEASED.stale, 0, text, 0, ''}
end
local state = LEASED.taken
if holder and position == current and holder ~= owner then
  if expiry > now then
    return {LEASED.busy, math.ceil((expiry - now) * 1000), text, 0, ''}
  end
  state = LEASED.taken_over
  redis.call('HINCRBY', key, prefix .. LEASE.step_failures, 1)
  redis.call('HSET', key, prefix .. LEASE.step_failure, 'null')
end
if position > current then
  -- The step before has run, though its unit has not advanced yet: how often that was broken off is not this step's.
  redis.call('HDEL', key, prefix .. LEASE.step_failures, prefix .. LEASE.step_failure)
end
local ends = string.format('%.3f', now + tonumber(ARGV[5]))
redis.call('HSET', key, prefix .. LEASE.position, ARGV[3], prefix .. LEASE.owner, owner, prefix .. LEASE.ends, ends)
local resent = redis.call('HDEL', key, prefix .. LEASE.resent, prefix .. LEASE.resent_at, prefix .. LEASE.missed)
if resent == 0 and state == LEASED.taken then
  -- Its own message, not a copy: how late it is says how long the queue is. Forgotten message by message.
  local late = now - tonumber(redis.call('ZSCORE', KEYS[3], member) or now)
  late = math.min(math.max(late, tonumber(redis.call('GET', KEYS[4]) or '0') * RULE.LATENESS_LEFT), RULE.MAX_LATENESS)
  redis.call('SET', KEYS[4], string.format('%.3f', late), 'EX', 120)
end
redis.call('ZADD', KEYS[3], ends, member)
-- Whatever message this is, the unit waits no longer.
redis.call('ZREM', KEYS[5], member)
local flights = redis.call('HGET', key, prefix .. LEASE.flights)
if flights then
  redis.call('HDEL', flights, member)
  redis.call('HDEL', key, prefix .. LEASE.flights)
end
local broken = redis.call('HMGET', key, prefix .. LEASE.step_failures, prefix .. LEASE.step_failure)
return {state, 0, text, tonumber(broken[1] or '0'), broken[2] or ''}
