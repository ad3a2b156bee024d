#!lua flags=allow-oom
-- Reads a task's record, and if the task has not ended, notes a client to wake when it does.
-- Waiters note themselves here, and not in the message, so that nothing is published for tasks nobody waits for.
-- KEYS: record
-- ARGV: client
-- Returns the record's fields and values; none if there is no record.
local record, client = KEYS[1], ARGV[1]
local fields = redis.call('HGETALL', record)
if #fields == 0 then return fields end
local known = {}
for i = 1, #fields, 2 do known[fields[i]] = fields[i + 1] end
if not known.ended then
  local waiters = known.waiters or ''
  if not string.find(' ' .. waiters .. ' ', ' ' .. client .. ' ', 1, true) then
    redis.call('HSET', record, 'waiters', waiters == '' and client or waiters .. ' ' .. client)
  end
end
return fields
