-- Keeps events. Answers for each, in their order: what, waiting, …; what is 0 where it was kept (or
-- was there already), 1 for a tick that was queued before, 2 where the queue is full.
-- KEYS queues, seq, ticks, pins; for each event: waiting, event
-- ARGV for each event: queue, id, due, limit, tick's trigger or '', tick's time, revision, version,
--   origin, accepted, expires, payload, rerun of or ''
local PER_EVENT = 13
local answers, pins = {}, {}
-- By the key of those who wait: how many, whom to add, and the earliest time of the queue.
local queues, order = {}, {}
for i = 1, #ARGV / PER_EVENT do
  local waiting, event = KEYS[3 + 2 * i], KEYS[4 + 2 * i]
  local queue, id, due, limit, tick, at, revision, version, origin, accepted, expires, payload,
    rerun_of = unpack(ARGV, PER_EVENT * (i - 1) + 1, PER_EVENT * i)
  local q = queues[waiting]
  if not q then
    q = {name = queue, count = redis.call('ZCARD', waiting), added = {}}
    queues[waiting] = q
    order[#order + 1] = waiting
  end
  local what = 0
  if redis.call('EXISTS', event) == 0 then
    if tick ~= '' then
      local mark = redis.call('HGET', KEYS[3], tick)
      if mark and tonumber(at) <= tonumber(mark) then what = 1 end
    end
    if what == 0 and tonumber(limit) <= q.count then what = 2 end
    if what == 0 then
      if tick ~= '' then redis.call('HSET', KEYS[3], tick, at) end
      -- Sixteen digits, so that members of equal due time stand in the order of their acceptance.
      local member = string.format('%016x:%s', redis.call('INCR', KEYS[2]), id)
      redis.call('HSET', event, 'queue', queue, 'member', member, 'revision', revision,
        'state', 'queued', 'attempts', '', 'begun', '', 'version', version, 'origin', origin,
        'accepted', accepted, 'expires', expires, 'payload', payload)
      if rerun_of ~= '' then redis.call('HSET', event, 'rerun_of', rerun_of) end
      local added = q.added
      added[#added + 1] = due
      added[#added + 1] = member
      if not q.due or tonumber(due) < tonumber(q.due) then q.due = due end
      q.count = q.count + 1
      pins[revision] = (pins[revision] or 0) + 1
    end
  end
  answers[#answers + 1] = what
  answers[#answers + 1] = q.count
end
for _, waiting in ipairs(order) do
  local q = queues[waiting]
  if q.due then
    redis.call('ZADD', waiting, unpack(q.added))
    redis.call('ZADD', KEYS[1], 'LT', q.due, q.name)
  end
end
for revision, events in pairs(pins) do redis.call('HINCRBY', KEYS[4], revision, events) end
return answers
