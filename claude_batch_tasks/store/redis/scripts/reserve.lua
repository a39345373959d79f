-- Reserve what a batch costs at most, or settle what it has cost.
-- KEYS[1]  the job's money
-- KEYS[2]  the job's hash
-- ARGV[1]  the batch, and which of its rounds
-- ARGV[2]  what it has cost, or "" to reserve
-- ARGV[3]  least
-- ARGV[4]  most
-- ARGV[5]  limit
-- Returns "yes", "wait", "no", or "lost": what the job has spent is not known any more; settling always says "yes".
if redis.call('HEXISTS', KEYS[2], JOB.nonce) == 0 then
  return BUDGET.no
end
local had = redis.call('HGET', KEYS[1], ARGV[1])
local settled = string.match(had or '', SETTLED.cost)
if ARGV[2] ~= '' then
  if settled then
    add(KEYS[1], MONEY.spent, tonumber(ARGV[2]) - tonumber(settled))
  elseif had then
    settle(KEYS[1], MONEY.all, had, ARGV[2])
  end
  if had then
    redis.call('HSET', KEYS[1], ARGV[1], SETTLED.word .. ARGV[2])
  end
  return BUDGET.yes
elseif had and not settled then
  return BUDGET.yes
end
if money_lost(KEYS[1], KEYS[2]) then
  return BUDGET.lost
end
if settled then
  -- It was given up, and proved never to have been created.
  add(KEYS[1], MONEY.spent, 0 - tonumber(settled))
  redis.call('HDEL', KEYS[1], ARGV[1])
end
local answer = affordable(KEYS[1], MONEY.all, ARGV[5], tonumber(ARGV[3]), tonumber(ARGV[4]))
if answer == BUDGET.yes then
  begin_money(KEYS[1], KEYS[2])
  reserve(KEYS[1], MONEY.all, ARGV[4])
  redis.call('HSET', KEYS[1], ARGV[1], ARGV[4])
end
return answer
