-- Return where asks are, all in one text: to parse each value of an answer by itself takes a client far longer.
-- KEYS[1]  what the keys of asks begin with
-- ARGV     their ids
-- Returns JSON: for each its fields, in the order of AskPlace; false for what it does not have.
local found = {}
for at = 1, #ARGV do
  found[at] = redis.call('HMGET', KEYS[1] .. ARGV[at], PLACE.job_id, PLACE.position, PLACE.asked_at, PLACE.state,
    PLACE.canvas, PLACE.headers, PLACE.reserved)
end
return cjson.encode(found)
