-- Let keys that are to expire do so later; those that are not, and those that expire later still, stay as they are.
-- KEYS     all that a job has stored
-- ARGV[1]  milliseconds
for number = 1, #KEYS do
  local left = redis.call('PTTL', KEYS[number])
  if left > 0 and left < tonumber(ARGV[1]) then
    redis.call('PEXPIRE', KEYS[number], ARGV[1])
  end
end
return 1
