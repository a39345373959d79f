-- Replace a pool by others, to which its asks move.
-- KEYS[1]  the index of pools that are to be sealed
-- KEYS[2]  the list of pools that are not sealed yet
-- KEYS[3]  what the keys of asks begin with
-- KEYS[4]  what the keys of pools begin with
-- ARGV[1]  the pool's id
-- ARGV[2]  1: it is a parked one that stays, and the others' asks come behind its own
-- ARGV[3..] for each other: its id, its record in JSON, its state, when it was opened, when it is due or "", its deadline
--          or "", then how many asks move to it, and their positions; of one that is merged its id only
-- Returns 1 if it was done.
local time = redis.call('TIME')
local now = string.format('%.6f', tonumber(time[1]) + tonumber(time[2]) / 1000000)

-- Call a function with each ask of a pool and its position, in their order. Not one by one: Redis would count to each
-- from an end of the list.
local function each_ask(pool, act)
  local last = redis.call('LLEN', KEYS[4] .. pool .. POOL_KEY.asks) - 1
  for first = 0, last, 100 do
    local asks = redis.call('LRANGE', KEYS[4] .. pool .. POOL_KEY.asks, first, math.min(first + 99, last))
    for number, ask in ipairs(asks) do
      act(ask, first + number - 1)
    end
  end
  return last + 1
end

-- Append an ask to another pool, whose asks and bytes are counted.
local function move(ask, from, to, counted)
  local head = cjson.decode(string.match(ask, '^[^\n]*'))
  local position = redis.call('RPUSH', KEYS[4] .. to .. POOL_KEY.asks, ask) - 1
  local place = KEYS[3] .. head[ASK_HEAD.id]
  if redis.call('HGET', place, PLACE.job_id) == from then
    redis.call('HSET', place, PLACE.job_id, to, PLACE.position, position)
  end
  counted[1], counted[2] = counted[1] + 1, counted[2] + head[ASK_HEAD.size]
end

local old = KEYS[4] .. ARGV[1]
local state = redis.call('HGET', old .. POOL_KEY.hash, POOL.state)
if ARGV[2] == '1' then
  if state ~= POOL_STATE.parked then
    return 0
  end
  for at = 3, #ARGV do
    local id = ARGV[at]
    if id ~= ARGV[1] and redis.call('HGET', KEYS[4] .. id .. POOL_KEY.hash, POOL.state) == POOL_STATE.parked then
      local counted = {0, 0}
      each_ask(id, function(ask)
        if ask ~= '' then
          move(ask, id, ARGV[1], counted)
        end
      end)
      redis.call('HINCRBY', old .. POOL_KEY.hash, POOL.count, counted[1])
      redis.call('HINCRBY', old .. POOL_KEY.hash, POOL.size, string.format('%.0f', counted[2]))
      redis.call('UNLINK', KEYS[4] .. id .. POOL_KEY.hash, KEYS[4] .. id .. POOL_KEY.asks)
      redis.call('ZREM', KEYS[1], id)
      redis.call('ZREM', KEYS[2], id)
    end
  end
  return 1
end

if state ~= POOL_STATE.sealed and state ~= POOL_STATE.closed then
  return 0
end
-- Of each part: its asks, their bytes, and where it begins in the arguments.
local parts, moved_to = {}, {}
local at = 3
while at <= #ARGV do
  local part = {0, 0, at}
  parts[#parts + 1] = part
  at = at + 7
  for _ = 1, tonumber(ARGV[at - 1]) do
    moved_to[tonumber(ARGV[at])] = part
    at = at + 1
  end
end
-- What stays is appended, and all that was before is cut off then: each keeps its position.
local had = each_ask(ARGV[1], function(ask, position)
  local part = ask ~= '' and moved_to[position]
  if part then
    move(ask, ARGV[1], ARGV[part[3]], part)
    ask = ''
  end
  redis.call('RPUSH', old .. POOL_KEY.asks, ask)
end)
redis.call('LTRIM', old .. POOL_KEY.asks, had, -1)
for _, part in ipairs(parts) do
  local id, record, becomes, opened_at, due, deadline = unpack(ARGV, part[3], part[3] + 5)
  if becomes == POOL_STATE.closed then
    due = now
  end
  redis.call('HSET', KEYS[4] .. id .. POOL_KEY.hash, POOL.record, record, POOL.state, becomes, POOL.key, '',
    POOL.count, part[1], POOL.withdrawn, 0, POOL.size, string.format('%.0f', part[2]),
    POOL.opened_at, opened_at, POOL.due_at, due ~= '' and due or now, POOL.deadline, deadline)
  redis.call('ZADD', KEYS[2], opened_at, id)
  if due ~= '' then
    redis.call('ZADD', KEYS[1], due, id)
  end
end
redis.call('HSET', old .. POOL_KEY.hash, POOL.state, POOL_STATE.divided)
redis.call('ZREM', KEYS[1], ARGV[1])
redis.call('ZREM', KEYS[2], ARGV[1])
-- Where no job was made of it, nothing else removes it.
for _, key in ipairs({old .. POOL_KEY.hash, old .. POOL_KEY.asks}) do
  redis.call('EXPIRE', key, RULE.RETENTION)
end
return 1
