#!lua
-- Puts the messages of instants of a schedule on their queue, if the schedule is still due as its caller has seen it,
-- and sets when it is due next. So each instant is fired once, whoever tries. An id that has a record is left as it is.
-- KEYS: timetable: next instants, definitions, instants fired; stream of the level, delayed set, then a record for each
--       message
-- ARGV: group, event channels, queue, name, definition, the instant at which it is due, the next one, the last one
--       that is fired (or nothing), task, args, then for each message: id, options
-- Returns 1; 0 if another has fired it, or it was paused, changed or removed.
--@include events
--@include level
--@include put
local upcoming, definitions, fired, stream, delayed = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local group, channels, queue, name, definition, due, after, last, task, args = unpack(ARGV, 1, 10)
if tonumber(redis.call('ZSCORE', upcoming, name) or -1) ~= tonumber(due) then return 0 end
if redis.call('HGET', definitions, name) ~= definition then return 0 end
-- What can fail comes first: a script that fails is not rolled back, and what it has put is known when it comes again.
redis.call('HGET', fired, name)
if #KEYS > 5 and redis.call('EXISTS', stream) == 0 then
  redis.call('XGROUP', 'CREATE', stream, group, '0', 'MKSTREAM')
end
for i = 6, #KEYS do
  local record, id, options = KEYS[i], ARGV[2 * i - 1], ARGV[2 * i]
  put(stream, delayed, record, channels, queue, id, task, args, 0, options)
end
if last ~= '' then redis.call('HSET', fired, name, last) end
redis.call('ZADD', upcoming, after, name)
return 1
