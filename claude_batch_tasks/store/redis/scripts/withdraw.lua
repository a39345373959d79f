-- Take asks out of pools of which no job is made yet.
-- KEYS[1]  what the keys of asks begin with
-- KEYS[2]  what the keys of costs begin with
-- KEYS[3]  what the keys of pools begin with
-- ARGV[1]  seconds after which it is forgotten where they were
-- ARGV[2]  1: also out of one that is being sealed
-- ARGV[3]  1: end those as revoked, too, that are in a job
-- ARGV[4]  the name of the channel
-- ARGV[5..] their ids
-- Returns 1 for each that will never be sent, 0 for each other.
local found, ids = {}, {}
for at = 5, #ARGV do
  local place = KEYS[1] .. ARGV[at]
  local had = redis.call('HMGET', place, PLACE.job_id, PLACE.position, PLACE.state, PLACE.withdrawn)
  found[#found + 1] = had[4] and 1 or 0
  if had[1] and (had[3] or ASK_STATE.waiting) == ASK_STATE.waiting then
    local pool = KEYS[3] .. had[1]
    local state = redis.call('HMGET', pool .. POOL_KEY.hash, POOL.state, POOL.sealing)
    if state[1] == POOL_STATE.open or state[1] == POOL_STATE.parked
        or (state[1] == POOL_STATE.closed and (tonumber(state[2] or '0') < 1 or ARGV[2] == '1')) then
      redis.call('LSET', pool .. POOL_KEY.asks, had[2], '')
      redis.call('HINCRBY', pool .. POOL_KEY.hash, POOL.withdrawn, 1)
      redis.call('HSET', place, PLACE.state, ASK_STATE.revoked, PLACE.withdrawn, 1)
      redis.call('EXPIRE', place, ARGV[1])
      settle_ask(place, KEYS[2], 0)
      found[#found] = 1
      ids[#ids + 1] = ARGV[at]
    elseif ARGV[3] == '1' then
      redis.call('HSET', place, PLACE.state, ASK_STATE.revoked)
      redis.call('EXPIRE', place, ARGV[1])
      ids[#ids + 1] = ARGV[at]
    end
  end
end
if #ids > 0 then
  redis.pcall('PUBLISH', ARGV[4], cjson.encode(ids))
end
return found
