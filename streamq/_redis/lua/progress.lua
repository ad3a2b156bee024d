#!lua
-- Notes how far a task is that has not ended; who said so last counts.
-- KEYS: record
-- ARGV: event channels, queue, id, fence (empty: whoever has the task), progress as JSON
-- Returns 1; 0 if the task has ended, is not known, or is another's by now; the name of the queue where the task is
-- now, if it was moved.
--@include now
--@include events
local record = KEYS[1]
local channels, queue, id, fence, progress = unpack(ARGV)
local state, ended, current, task, moved_to =
  unpack(redis.call('HMGET', record, 'state', 'ended', 'fence', 'task', 'moved_to'))
if moved_to then return moved_to end
if not state or ended or (fence ~= '' and (current or '0') ~= fence) then return 0 end
redis.call('HSET', record, 'progress', progress)
if listening then tell(channels, queue, task or '', id, 'progress', cjson.decode(progress)) end
return 1
