#!lua flags=allow-oom
-- Moves one entry, whatever it holds, to the dead letters; ends the task whose entry it is.
-- KEYS: stream, dead letters, outbox, and the record if the entry names a task
-- ARGV: group, event channels, queue, done channels, worker, ms to keep records, entry, reason, error,
--       and with a record: fence (empty: whatever it is), id, task
-- Returns 1 if it was moved, 0 if it was gone or belongs to another.
--@include now
--@include events
--@include settle
--@include dead
--@include leave
local stream, dead, outbox, record = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local group, channels, queue, done, worker, ttl, entry, reason, failure, fence, id, task = unpack(ARGV)
local was, is_its_entry, waiters, forget
if record then
  local current, its_entry
  was, current, its_entry, waiters, forget =
    unpack(redis.call('HMGET', record, 'state', 'fence', 'entry', 'waiters', 'forget'))
  if was and fence ~= '' and (current or '0') ~= fence then return 0 end
  is_its_entry = its_entry == entry -- anybody can write an entry with another's id
end
if #redis.call('XPENDING', stream, group, entry, entry, 1) == 0 then return 0 end
local found = redis.call('XRANGE', stream, entry, entry)[1]
local fields = found and found[2] or {}
-- What can fail comes first: a script that fails is not rolled back.
write_dead(dead, reason, worker, entry, failure, fields)
if was == 'queued' and is_its_entry then
  forget = forget and not is_of_flow(record)
  settle(record, 'dead', failure, waiters, forget, done, id, ttl)
  leave(outbox, record, id)
end
redis.call('XACK', stream, group, entry)
redis.call('XDEL', stream, entry)
if is_its_entry and listening then tell(channels, queue, task, id, 'dead', { worker = worker, reason = reason }) end
return 1
