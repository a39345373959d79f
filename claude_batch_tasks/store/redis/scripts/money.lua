-- What a job may spend; begins the scripts that ask. Nano-dollars: exact in a double up to nine million dollars.
-- Whether the job had such a record and has lost it, or all of it that matters.
local function money_lost(money, job)
  return redis.call('HEXISTS', job, JOB.money) == 1 and redis.call('HEXISTS', money, MONEY.begun) == 0
end

local function begin_money(money, job)
  redis.call('HSET', money, MONEY.begun, 1)
  redis.call('HSET', job, JOB.money, 1)
end

-- Whether something may be paid for, of a limit ("": none): "yes"; "wait": something that is reserved may cost less
-- than was reserved for it; "no". What is alone may cost more than is left, if that covers what it costs at least.
local function affordable(money, pool, limit, least, most)
  if limit == '' then
    return BUDGET.yes
  end
  local sums = redis.call('HMGET', money, pool .. MONEY.spent, pool .. MONEY.reserved)
  local reserved = tonumber(sums[2] or '0')
  local left = tonumber(limit) - tonumber(sums[1] or '0')
  if most <= left - reserved then
    return BUDGET.yes
  elseif least > left then
    return BUDGET.no
  end
  return reserved > 0 and BUDGET.wait or BUDGET.yes
end

-- In full, and without the sign of a negative zero, which is no integer to Redis.
local function add(money, name, amount)
  redis.call('HINCRBY', money, name, string.format('%.0f', 0 + amount))
end

local function reserve(money, pool, most)
  add(money, pool .. MONEY.reserved, tonumber(most))
end

local function settle(money, pool, most, spent)
  add(money, pool .. MONEY.reserved, 0 - tonumber(most))
  add(money, pool .. MONEY.spent, tonumber(spent))
end

