#!lua flags=allow-oom
-- Moves delayed tasks whose time has come to the streams of their levels.
-- KEYS: delayed set, the streams of the levels from 0, then a record for each task
-- ARGV: group, event channels, queue, then the id of each task
-- Returns how many were moved.
--@include now
--@include events
--@include level
--@include open
--@include unstow
local delayed, group, channels, queue = KEYS[1], ARGV[1], ARGV[2], ARGV[3]
local moved = 0
for i = 12, #KEYS do
  local record, id = KEYS[i], ARGV[i - 8]
  local due = redis.call('ZSCORE', delayed, id)
  if due and tonumber(due) <= now then
    if redis.call('HGET', record, 'state') == 'delayed' then
      local task = unstow(record, id, 2, group)
      moved = moved + 1
      if listening then tell(channels, queue, task, id, 'queued') end
    end
    redis.call('ZREM', delayed, id)
  end
end
return moved
