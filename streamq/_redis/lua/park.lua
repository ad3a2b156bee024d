#!lua flags=allow-oom
-- Puts a delivery back for later: its message waits in the delayed set, under a raised fence.
-- KEYS: stream, delayed set, record
-- ARGV: group, event channels, queue, entry, fence, id, task, args, ms of the first enqueue, ms to wait, reason
-- Returns 1 if it was put back, 0 if it is another's by now.
--@include events
local stream, delayed, record = KEYS[1], KEYS[2], KEYS[3]
local group, channels, queue, entry, fence, id, task, args, at, wait, reason = unpack(ARGV)
if (redis.call('HGET', record, 'fence') or '0') ~= fence then return 0 end
if redis.call('XACK', stream, group, entry) == 0 then return 0 end
redis.call('XDEL', stream, entry)
redis.call('HINCRBY', record, 'fence', 1)
redis.call('HSET', record, 'state', 'delayed', 'task', task, 'args', args, 'at', at)
redis.call('HDEL', record, 'entry', 'stream')
redis.call('ZADD', delayed, now + wait, id)
if listening then tell(channels, queue, task, id, 'delayed', { due = now + wait, reason = reason }) end
return 1
