-- Holds an event for longer. Answers 1, 2 if somebody asked to cancel it, or 0 if the claim is not the
-- newest or was settled.
-- KEYS queues, waiting, held, event
-- ARGV queue, claim, end of the hold
local f = redis.call('HMGET', KEYS[4], 'tries', 'state', 'member', 'cancel_requested')
if f[1] ~= ARGV[2] or f[2] ~= 'running' then return 0 end
redis.call('ZADD', KEYS[3], ARGV[3], f[3])
refresh(KEYS[1], ARGV[1], KEYS[2], KEYS[3])
return f[4] and 2 or 1
