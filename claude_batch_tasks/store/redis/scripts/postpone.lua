-- Change when units that wait are due.
-- KEYS[1]  the index of units that wait without a message
-- KEYS[2]  the index of due units
-- ARGV     unit, the hash of its record, when it is due, how, and when the API showed it or nothing; unit, ...
--          how: "listed": only if a listing may speak for it; "alone": likewise, and none does any more; "woken": whatever
--          it waits for, and no listing speaks for it any more
for i = 1, #ARGV, 5 do
  local member, key, due, how, shown = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3], ARGV[i + 4]
  local flights = redis.call('HGET', key, BATCH.flights)
  if (flights or how == POSTPONED.woken) and redis.call('ZSCORE', KEYS[1], member) then
    redis.call('ZADD', KEYS[1], due, member)
    redis.call('ZADD', KEYS[2], due, member)
    if how ~= POSTPONED.woken then
      redis.call('HSET', key, BATCH.due_at, due)
    end
    if shown ~= '' and tonumber(shown) > (tonumber(redis.call('HGET', key, BATCH.sighting)) or 0) then
      redis.call('HSET', key, BATCH.sighting, shown, BATCH.absences, 0)
    end
  end
  if flights and how ~= POSTPONED.listed then
    redis.call('HDEL', flights, member)
    redis.call('HDEL', key, BATCH.flights)
  end
end
