-- Return hashes, all in one text: to parse each value of an answer by itself takes a client far longer.
-- KEYS  the hashes
-- Returns JSON: of each its fields and values in turn; {} if it is not there.
local found = {}
for number, key in ipairs(KEYS) do
  found[number] = redis.call('HGETALL', key)
end
return cjson.encode(found)
