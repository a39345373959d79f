-- A request was refused, and not charged for: it is to be sent again.
-- KEYS[1]  the requests that were sent
-- KEYS[2]  the requests that wait to be sent
-- KEYS[3]  how often each was refused
-- KEYS[4]  the job's money
-- KEYS[5]  the job's hash
-- ARGV[1]  the request's position
-- ARGV[2]  seconds until then
-- ARGV[3]  after so many refusals it stays where it is, for whoever asks to end it
-- Returns how often it was refused so far; 0 if somebody else has dealt with it.
local sent = redis.call('HGET', KEYS[1], ARGV[1])
-- Of a job that is over (revoked, most likely) nothing new is to stay.
if not sent or redis.call('HGET', KEYS[5], JOB.state) ~= STATE.running then
  return 0
end
local times = redis.call('HINCRBY', KEYS[3], ARGV[1], 1)
if times >= tonumber(ARGV[3]) then
  return times
end
if string.match(sent, SENT.most) then
  settle(KEYS[4], MONEY.fallback, string.match(sent, SENT.most), '0')
  settle(KEYS[4], MONEY.all, string.match(sent, SENT.most), '0')
end
redis.call('HDEL', KEYS[1], ARGV[1])
local time = redis.call('TIME')
redis.call('ZADD', KEYS[2], tonumber(time[1]) + tonumber(time[2]) / 1000000 + tonumber(ARGV[2]), ARGV[1])
return times
