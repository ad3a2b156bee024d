#!lua flags=allow-oom
-- Moves one entry, whatever it holds, to the dead letters; ends the task if it has a record and the fence is good.
-- KEYS: stream, dead letters, and the record if the entry names a task
-- ARGV: group, event channels, queue, done channels, worker, ms to keep records, entry, reason, error,
--       and with a record: fence (empty: whatever it is), id, task
-- Returns 1 if it was moved, 0 if it was gone or belongs to another.
--@include events
--@include settle
local stream, dead, record = KEYS[1], KEYS[2], KEYS[3]
local group, channels, queue, done, worker, ttl, entry, reason, failure, fence, id, task = unpack(ARGV)
local was, waiters, forget
if record then
  local current
  was, current, waiters, forget = unpack(redis.call('HMGET', record, 'state', 'fence', 'waiters', 'forget'))
  if was and fence ~= '' and (current or '0') ~= fence then return 0 end
end
if redis.call('XACK', stream, group, entry) == 0 then return 0 end
local found = redis.call('XRANGE', stream, entry, entry)[1]
redis.call('XADD', dead, '*', 'reason', reason, 'worker', worker, 'entry', entry, unpack(found and found[2] or {}))
redis.call('XDEL', stream, entry)
if was == 'queued' then
  settle(record, 'dead', failure, waiters, forget, done, id, ttl)
end
if record and listening then tell(channels, queue, task, id, 'dead', { worker = worker, reason = reason }) end
return 1
