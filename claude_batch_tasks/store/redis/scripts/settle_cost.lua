-- Replace what asks have reserved by what was spent for them.
-- KEYS[1]  what the keys of asks begin with
-- KEYS[2]  what the keys of costs begin with
-- ARGV     id, what was spent, id, what was spent, ...
for at = 1, #ARGV, 2 do
  settle_ask(KEYS[1] .. ARGV[at], KEYS[2], ARGV[at + 1])
end
