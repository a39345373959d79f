-- Make a retry job of what was staged for it, and take its requests from the jobs that they come from.
-- KEYS[1]    the job's hash
-- KEYS[2,3]  where its index is staged, where it belongs
-- KEYS[4]    the list of all jobs
-- KEYS[5]    the index of due units
-- KEYS[6]    the index of units that wait without a message
-- KEYS[7..]  the hash of each job that requests are taken from; then of each of their batches that they are in; then for
--            each batch of the new job: its hash, then pairs: where a list of it is staged, where it belongs
-- ARGV[1]    how many jobs requests are taken from
-- ARGV[2]    from how many batches
-- ARGV[3]    lists per batch
-- ARGV[4]    the job's id
-- ARGV[5]    when it was submitted
-- ARGV[6]    the job's record, as a JSON array: field, value, field, value, ...
-- ARGV[7..]  for each job that requests are taken from: how many retries it has, and the new one as JSON; then for each of
--            their batches: a field, and its value; then for each batch of the new job: its record, as a JSON array, and
--            what the indices call it, or "" if it is not its turn yet
-- Returns 1 if it was made, 0 if it may not take the requests, -1 if some of what was staged has expired.
local sources, taken, lists = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
if redis.call('EXISTS', KEYS[1]) == 1 then
  return 0
end
for number = 1, sources do
  local key = KEYS[6 + number]
  local state = redis.call('HGET', key, JOB.state)
  local retries = cjson.decode(redis.call('HGET', key, JOB.retries) or '[]')
  if redis.call('HEXISTS', key, JOB.nonce) == 0 or #retries ~= tonumber(ARGV[5 + 2 * number])
      or (state ~= STATE.completed and state ~= STATE.canceled and state ~= STATE.failed) then
    return 0
  end
end
for number = 1, taken do
  if redis.call('HEXISTS', KEYS[6 + sources + number], BATCH.count) == 0 then
    return 0
  end
end
local first = 7 + sources + taken
if redis.call('EXISTS', KEYS[2]) == 0 then
  return -1
end
for key = first, #KEYS, 1 + 2 * lists do
  for list = key + 1, key + 2 * lists, 2 do
    if redis.call('EXISTS', KEYS[list]) == 0 then
      return -1
    end
  end
end

for number = 1, sources do
  local key, retries = KEYS[6 + number], redis.call('HGET', KEYS[6 + number], JOB.retries) or '[]'
  -- As text: what a later release wrote into it stays.
  local before = retries == '[]' and '[' or string.sub(retries, 1, -2) .. ','
  redis.call('HSET', key, JOB.retries, before .. ARGV[6 + 2 * number] .. ']')
end
local at = 6 + 2 * sources
for number = 1, taken do
  redis.call('HSET', KEYS[6 + sources + number], ARGV[at + 2 * number - 1], ARGV[at + 2 * number])
end

local function move(from, to)
  redis.call('RENAME', from, to)
  redis.call('PERSIST', to)
end
move(KEYS[2], KEYS[3])
at = at + 2 * taken + 1
local now = redis.call('TIME')[1]
for key = first, #KEYS, 1 + 2 * lists do
  redis.call('HSET', KEYS[key], unpack(cjson.decode(ARGV[at])))
  if ARGV[at + 1] ~= '' then
    redis.call('ZADD', KEYS[5], now, ARGV[at + 1])
    redis.call('ZADD', KEYS[6], now, ARGV[at + 1])
  end
  at = at + 2
  for list = key + 1, key + 2 * lists, 2 do
    move(KEYS[list], KEYS[list + 1])
  end
end
redis.call('HSET', KEYS[1], unpack(cjson.decode(ARGV[6])))
redis.call('ZADD', KEYS[4], ARGV[5], ARGV[4])
return 1
