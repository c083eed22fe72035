-- Drops some of the events that ended before a time; answers how many.
-- KEYS ended, buried
-- ARGV before, how many at most, prefix of events' keys
local old = redis.call('ZRANGE', KEYS[1], '-inf', '(' .. ARGV[1], 'BYSCORE', 'LIMIT', 0, ARGV[2])
for _, member in ipairs(old) do
  redis.call('DEL', ARGV[3] .. string.sub(member, 3, 38))
  if string.sub(member, 1, 1) == 'b' then
    local queue = string.sub(member, 40)
    if redis.call('HINCRBY', KEYS[2], queue, -1) <= 0 then redis.call('HDEL', KEYS[2], queue) end
  end
end
if 0 < #old then redis.call('ZREM', KEYS[1], unpack(old)) end
return #old
