#!lua flags=allow-oom
-- Moves delayed tasks whose time has come to the ready stream.
-- KEYS: ready stream, delayed set, then a record for each task
-- ARGV: group, event channels, queue, then the id of each task
-- Returns how many were moved.
--@include events
--@include unstow
local stream, delayed = KEYS[1], KEYS[2]
local channels, queue = ARGV[2], ARGV[3]
if redis.call('EXISTS', stream) == 0 then
  redis.call('XGROUP', 'CREATE', stream, ARGV[1], '0', 'MKSTREAM')
end
local moved = 0
for i = 3, #KEYS do
  local record, id = KEYS[i], ARGV[i + 1]
  local due = redis.call('ZSCORE', delayed, id)
  if due and tonumber(due) <= now then
    if redis.call('HGET', record, 'state') == 'delayed' then
      local task = unstow(stream, record, id)
      moved = moved + 1
      if listening then tell(channels, queue, task, id, 'queued') end
    end
    redis.call('ZREM', delayed, id)
  end
end
return moved
