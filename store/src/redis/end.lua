-- Ends a held event. Its state stays for a while; its payload goes.
-- Answers 1, or 0 if the claim is not the newest or was settled.
-- KEYS queues, waiting, held, event, ended, buried, pins, stream of ends
-- ARGV queue, id, claim, the finished attempt or '', state, now, 'result' or 'error' or '',
--   that text, how long to keep it (ms), how many unread ends to keep
local f = redis.call('HMGET', KEYS[4], 'tries', 'state', 'member', 'attempts', 'revision',
  'version', 'origin', 'accepted', 'payload', 'rerun_of')
if f[1] ~= ARGV[3] or f[2] ~= 'running' then return 0 end
redis.call('XADD', KEYS[8], 'MAXLEN', '~', ARGV[10], '*', 'id', ARGV[2], 'queue', ARGV[1],
  'version', f[6], 'revision', f[5], 'origin', f[7], 'accepted', f[8], 'ended', ARGV[6],
  'state', ARGV[5], 'attempts', f[4] .. ARGV[4], 'error', ARGV[7] == 'error' and ARGV[8] or '',
  'payload', f[9] or '', 'rerun_of', f[10] or '')
redis.call('HSET', KEYS[4], 'state', ARGV[5], 'attempts', f[4] .. ARGV[4], 'begun', '',
  'ended', ARGV[6])
if ARGV[7] ~= '' then redis.call('HSET', KEYS[4], ARGV[7], ARGV[8]) end
redis.call('HDEL', KEYS[4], 'payload')
redis.call('PEXPIRE', KEYS[4], ARGV[9])
redis.call('ZREM', KEYS[3], f[3])
local mark = 's'
if ARGV[5] == 'failed' or ARGV[5] == 'expired' then
  mark = 'b'
  redis.call('HINCRBY', KEYS[6], ARGV[1], 1)
end
-- The member says all that `collect` needs: by then the hash may have expired.
redis.call('ZADD', KEYS[5], ARGV[6], mark .. ':' .. ARGV[2] .. ':' .. ARGV[1])
if redis.call('HINCRBY', KEYS[7], f[5], -1) <= 0 then redis.call('HDEL', KEYS[7], f[5]) end
refresh(KEYS[1], ARGV[1], KEYS[2], KEYS[3])
return 1
