-- Puts a held event back. Answers 1, 2 if it stays held because somebody asked to cancel it, or 0 if
-- the claim is not the newest or was settled.
-- KEYS queues, waiting, held, event, retried
-- ARGV queue, claim, due, the finished attempt or '' if the try cost none
local f = redis.call('HMGET', KEYS[4], 'tries', 'state', 'member', 'attempts', 'accepted',
  'cancel_requested')
if f[1] ~= ARGV[2] or f[2] ~= 'running' then return 0 end
if f[6] then return 2 end
if ARGV[4] == '' then redis.call('HINCRBY', KEYS[4], 'ran', -1) end
local attempts = f[4] .. ARGV[4]
local state = attempts == '' and 'queued' or 'retrying'
redis.call('HSET', KEYS[4], 'state', state, 'attempts', attempts, 'begun', '')
redis.call('ZREM', KEYS[3], f[3])
redis.call('ZADD', KEYS[2], ARGV[3], f[3])
redis.call('ZADD', KEYS[5], f[5], f[3])
refresh(KEYS[1], ARGV[1], KEYS[2], KEYS[3])
return 1
