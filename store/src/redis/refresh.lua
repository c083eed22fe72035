-- Shared by the scripts that move events: notes when a queue next has something to claim, or
-- that it has nothing left. One sorted set of queues is what makes `ready` cheap.
local function refresh(queues, queue, waiting, held)
  local first = redis.call('ZRANGE', waiting, 0, 0, 'WITHSCORES')[2]
  local lapse = redis.call('ZRANGE', held, 0, 0, 'WITHSCORES')[2]
  if lapse and (not first or tonumber(lapse) < tonumber(first)) then first = lapse end
  if first then
    redis.call('ZADD', queues, first, queue)
  else
    redis.call('ZREM', queues, queue)
  end
end
