-- Keeps an event. Answers {what, waiting}: 0 kept (or there already), 1 a tick that was queued
-- before, 2 the queue is full.
-- KEYS queues, waiting, event, seq, ticks, pins
-- ARGV queue, id, due, limit, tick's trigger or '', tick's time, revision, field, value, …
if redis.call('EXISTS', KEYS[3]) == 1 then return {0, 0} end
local ticks = ARGV[5] ~= ''
if ticks then
  local mark = redis.call('HGET', KEYS[5], ARGV[5])
  if mark and tonumber(ARGV[6]) <= tonumber(mark) then return {1, 0} end
end
local waiting = redis.call('ZCARD', KEYS[2])
if tonumber(ARGV[4]) <= waiting then return {2, waiting} end
if ticks then redis.call('HSET', KEYS[5], ARGV[5], ARGV[6]) end
-- Sixteen digits, so that members of equal due time stand in the order of their acceptance.
local member = string.format('%016x:%s', redis.call('INCR', KEYS[4]), ARGV[2])
redis.call('HSET', KEYS[3], 'queue', ARGV[1], 'member', member, 'revision', ARGV[7],
  'state', 'queued', 'tries', 0, 'ran', 0, 'attempts', '', 'begun', '', unpack(ARGV, 8))
redis.call('ZADD', KEYS[2], ARGV[3], member)
redis.call('ZADD', KEYS[1], 'LT', ARGV[3], ARGV[1])
redis.call('HINCRBY', KEYS[6], ARGV[7], 1)
return {0, waiting + 1}
