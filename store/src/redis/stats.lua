-- One queue's figures: {waiting, running, when the oldest waiting event was accepted or ''}.
-- KEYS waiting, held, retried
-- ARGV prefix of events' keys
-- An event that never ran is due when it was accepted, so the first of `waiting` is the oldest of
-- those; the ones put back are in `retried`, by acceptance.
local oldest = ''
local first = redis.call('ZRANGE', KEYS[1], 0, 0)[1]
if first then
  oldest = redis.call('HGET', ARGV[1] .. string.sub(first, 18), 'accepted') or ''
  local retried = redis.call('ZRANGE', KEYS[3], 0, 0, 'WITHSCORES')[2]
  if retried and (oldest == '' or tonumber(retried) < tonumber(oldest)) then oldest = retried end
end
return {redis.call('ZCARD', KEYS[1]), redis.call('ZCARD', KEYS[2]), oldest}
