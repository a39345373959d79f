-- Begins the scripts that replace what asks have reserved by what was spent for them.
-- Once: what is reserved is 0 from then on. A window that is over counts for nothing, and is not made again.
local function settle_ask(place, costs, spent)
  local had = redis.call('HMGET', place, PLACE.reserved, PLACE.budget)
  if had[2] and tonumber(had[1] or '0') > 0 then
    if redis.call('EXISTS', costs .. had[2]) == 1 then
      redis.call('INCRBY', costs .. had[2], string.format('%.0f', 0 + tonumber(spent) - tonumber(had[1])))
    end
    redis.call('HSET', place, PLACE.reserved, 0)
  end
end

