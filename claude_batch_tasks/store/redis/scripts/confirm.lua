-- See that a request which is about to be sent through the Messages API is still its lane's, and renew the lane's lease.
-- KEYS[1]  the lanes of the batch
-- KEYS[2]  the requests that were sent
-- KEYS[3]  the index of due units
-- ARGV[1]  prefix of the lane's fields
-- ARGV[2]  what the index calls the lane
-- ARGV[3]  who must still have the lane
-- ARGV[4]  seconds to renew the lease for
-- ARGV[5]  the request's position
-- ARGV[6]  the lane
-- Returns 1 if it is, 0 if the lane is somebody else's, or the request's fate was decided without its answer.
local sent = redis.call('HGET', KEYS[2], ARGV[5])
if redis.call('HGET', KEYS[1], ARGV[1] .. LEASE.owner) ~= ARGV[3]
    or not sent or string.match(sent, SENT.lane) ~= ARGV[6] then
  return 0
end
local time = redis.call('TIME')
local ends = string.format('%.3f', tonumber(time[1]) + tonumber(time[2]) / 1000000 + tonumber(ARGV[4]))
redis.call('HSET', KEYS[1], ARGV[1] .. LEASE.ends, ends)
redis.call('ZADD', KEYS[3], ends, ARGV[2])
return 1
