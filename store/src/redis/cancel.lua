-- Ends an event that waits as cancelled; stores the request where it is held. Answers its state as
-- it was found, '' if there is no such event.
-- KEYS queues, waiting, held, event, retried, ended, pins, stream of ends
-- ARGV queue, id, now, how long to keep it (ms), how many unread ends to keep
local f = redis.call('HMGET', KEYS[4], 'state', 'member', 'attempts', 'revision', 'version',
  'origin', 'accepted', 'payload', 'rerun_of')
if not f[1] then return '' end
if f[1] == 'running' then redis.call('HSET', KEYS[4], 'cancel_requested', ARGV[3]) end
if f[1] ~= 'queued' and f[1] ~= 'retrying' then return f[1] end
redis.call('XADD', KEYS[8], 'MAXLEN', '~', ARGV[5], '*', 'id', ARGV[2], 'queue', ARGV[1],
  'version', f[5], 'revision', f[4], 'origin', f[6], 'accepted', f[7], 'ended', ARGV[3],
  'state', 'cancelled', 'attempts', f[3], 'error', '', 'payload', f[8] or '',
  'rerun_of', f[9] or '')
redis.call('HSET', KEYS[4], 'state', 'cancelled', 'ended', ARGV[3])
redis.call('HDEL', KEYS[4], 'payload')
redis.call('PEXPIRE', KEYS[4], ARGV[4])
redis.call('ZREM', KEYS[2], f[2])
redis.call('ZREM', KEYS[5], f[2])
redis.call('ZADD', KEYS[6], ARGV[3], 's:' .. ARGV[2] .. ':' .. ARGV[1])
if redis.call('HINCRBY', KEYS[7], f[4], -1) <= 0 then redis.call('HDEL', KEYS[7], f[4]) end
refresh(KEYS[1], ARGV[1], KEYS[2], KEYS[3])
return f[1]
