#!lua flags=allow-oom
-- Reads a task's record, and if the task has not ended, notes a client to wake when it does.
-- Waiters note themselves here, and not in the message, so that nothing is published for tasks nobody waits for.
-- A task whose message has vanished would be waited for in vain, so its record goes too. That settles it: whoever still
-- runs it cannot commit any more, and its id is free.
-- KEYS: record, returned stream, then the streams of the levels from 0
-- ARGV: client
-- Returns the record's fields and values; none if there is no record.
--@include note
local record, client = KEYS[1], ARGV[1]
local fields = redis.call('HGETALL', record)
if #fields == 0 then return fields end
local known = {}
for i = 1, #fields, 2 do known[fields[i]] = fields[i + 1] end
local stream = known.stream == 'returned' and KEYS[2] or KEYS[3 + (known.stream or 5)]
if known.state == 'queued' and known.entry and not redis.call('XRANGE', stream, known.entry, known.entry)[1] then
  redis.call('DEL', record)
  return {}
end
if not known.ended then note(record, 'waiters', known.waiters, client) end
return fields
