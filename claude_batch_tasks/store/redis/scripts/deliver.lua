-- Record what became of calls of a job's on_result, a bit for each request of the job.
-- KEYS[1]   the job's hash
-- KEYS[2]   the requests that are delivered
-- KEYS[3]   the requests whose call failed for good
-- KEYS[4]   the requests with which single tasks of a call ended well: those of the second task behind those of the
--           first, and so on
-- ARGV[1]   what happened: one of DELIVERY
-- ARGV[2]   now
-- ARGV[3]   why the call failed, in JSON
-- ARGV[4]   which of the tasks of the call ended, from 0
-- ARGV[5]   how many tasks must end
-- ARGV[6..] first position and number of positions, of each run of requests
-- Returns nothing if the job is gone; else how many requests have changed, 1 if all are delivered now, and 1 if no call
-- has failed for this reason before.
local requests = redis.call('HGET', KEYS[1], JOB.requests)
if not requests then
  return false
end
requests = tonumber(requests)
local what, part, parts = ARGV[1], tonumber(ARGV[4]), tonumber(ARGV[5])
local changed = 0
local has_failures = redis.call('EXISTS', KEYS[3]) == 1

local function has_ended(position)
  if parts == 1 then
    return true
  end
  redis.call('SETBIT', KEYS[4], part * requests + position, 1)
  for each = 0, parts - 1 do
    if redis.call('GETBIT', KEYS[4], each * requests + position) == 0 then
      return false
    end
  end
  return true
end

local function record(position)
  if what == DELIVERY.delivered then
    if has_ended(position) then
      changed = changed + 1 - redis.call('SETBIT', KEYS[2], position, 1)
      if has_failures then
        redis.call('SETBIT', KEYS[3], position, 0)
      end
    end
  elseif what == DELIVERY.failed then
    if redis.call('GETBIT', KEYS[2], position) == 0 then
      changed = changed + 1 - redis.call('SETBIT', KEYS[3], position, 1)
    end
  elseif what == DELIVERY.called then
    redis.call('SETBIT', KEYS[2], position, 0)
    if has_failures then
      redis.call('SETBIT', KEYS[3], position, 0)
    end
    for each = 0, parts > 1 and parts - 1 or -1 do
      redis.call('SETBIT', KEYS[4], each * requests + position, 0)
    end
  end
end

for at = 6, #ARGV, 2 do
  local first, count = tonumber(ARGV[at]), tonumber(ARGV[at + 1])
  for position = first, math.min(first + count, requests) - 1 do
    record(position)
  end
end

redis.call('HSET', KEYS[1], JOB.delivery_at, ARGV[2])
local is_new = 0
if what == DELIVERY.failed and changed > 0 then
  local known, reasons = redis.call('HGET', KEYS[1], JOB.delivery_errors), {}
  is_new = 1
  for _, reason in ipairs(known and cjson.decode(known) or {}) do
    if reason == cjson.decode(ARGV[3]) then
      is_new = 0
    else
      reasons[#reasons + 1] = reason
    end
  end
  -- The last is the one that is shown.
  reasons[#reasons + 1] = cjson.decode(ARGV[3])
  while #reasons > RULE.DELIVERY_REASONS do
    table.remove(reasons, 1)
  end
  redis.call('HSET', KEYS[1], JOB.delivery_errors, cjson.encode(reasons))
end
local complete = 0
if what == DELIVERY.delivered and changed > 0 and redis.call('BITCOUNT', KEYS[2]) == requests then
  complete = 1
end
-- A job that is over expires, and this with it. A worker of 0.2.0 that ends the job does not know these keys: they
-- expire by themselves, when the batches are gone as well.
local left = redis.call('PTTL', KEYS[1])
for each = 2, 4 do
  if left > 0 then
    redis.call('PEXPIRE', KEYS[each], left)
  elseif redis.call('PTTL', KEYS[each]) == -1 then
    redis.call('EXPIRE', KEYS[each], RULE.RETENTION)
  end
end
return {changed, complete, is_new}
