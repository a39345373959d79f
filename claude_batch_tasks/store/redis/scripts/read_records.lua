-- Return hashes, all in one text: to parse each value of an answer by itself takes a client far longer.
-- KEYS  the hashes
-- Returns JSON: of each its fields and values in turn; {} if it is not there. What retries took is left out: it is no text.
local found = {}
for number, key in ipairs(KEYS) do
  local fields = redis.call('HGETALL', key)
  for at = 1, #fields, 2 do
    if string.match(fields[at], RETRY.taken) then
      fields[at + 1] = ''
    end
  end
  found[number] = fields
end
return cjson.encode(found)
