-- Takes events whose hold ran out, then those that are due, in the order of their due times.
-- KEYS queues, waiting, held, retried
-- ARGV queue, prefix of events' keys, now, end of the hold, how many, the begun attempt
local out = {}
local function take(member)
  local key = ARGV[2] .. string.sub(member, 18)
  local f = redis.call('HMGET', key, 'payload', 'version', 'revision', 'origin', 'accepted',
    'expires', 'attempts', 'begun', 'cancel_requested')
  if not f[1] then
    -- Its hash is missing: it was deleted, or Redis evicted it.
    redis.call('ZREM', KEYS[3], member)
    redis.call('ZREM', KEYS[4], member)
    return
  end
  local tries = redis.call('HINCRBY', key, 'tries', 1)
  local ran = redis.call('HINCRBY', key, 'ran', 1)
  redis.call('HSET', key, 'state', 'running', 'attempts', f[7] .. f[8], 'begun', ARGV[6])
  redis.call('ZADD', KEYS[3], ARGV[4], member)
  if 1 < tries then redis.call('ZREM', KEYS[4], member) end
  out[#out + 1] = {string.sub(member, 18), tries, ran, f[1], f[2], f[3], f[4], f[5], f[6],
    f[9] or ''}
end

local max = tonumber(ARGV[5])
local lapsed = redis.call('ZRANGE', KEYS[3], '-inf', ARGV[3], 'BYSCORE', 'LIMIT', 0, max)
for _, member in ipairs(lapsed) do take(member) end
if #lapsed < max then
  local due =
    redis.call('ZRANGE', KEYS[2], '-inf', ARGV[3], 'BYSCORE', 'LIMIT', 0, max - #lapsed)
  if 0 < #due then redis.call('ZREM', KEYS[2], unpack(due)) end
  for _, member in ipairs(due) do take(member) end
end
refresh(KEYS[1], ARGV[1], KEYS[2], KEYS[3])
return out
