-- Return where asks are, all in one text: to parse each value of an answer by itself takes a client far longer.
-- KEYS[1]  what the keys of asks begin with
-- ARGV[1]  1: with their canvas and headers
-- ARGV[2..] their ids
-- Returns JSON: for each its fields, in this order; false for what it does not have.
local fields = {PLACE.job_id, PLACE.position, PLACE.asked_at, PLACE.state, PLACE.reserved}
if ARGV[1] == '1' then
  fields[6], fields[7] = PLACE.canvas, PLACE.headers
end
local found = {}
for at = 2, #ARGV do
  found[at - 1] = redis.call('HMGET', KEYS[1] .. ARGV[at], unpack(fields))
end
return cjson.encode(found)
