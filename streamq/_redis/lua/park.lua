#!lua flags=allow-oom
-- Puts a delivery back for later: its message waits in the delayed set, under a raised fence.
-- KEYS: stream, delayed set, record
-- ARGV: group, event channels, queue, entry, fence, id, task, args, ms of the first enqueue, ms to wait, reason
-- Returns 1 if it was put back, 0 if it is another's by now.
--@include events
local stream, delayed, record = KEYS[1], KEYS[2], KEYS[3]
local group, channels, queue, entry, fence, id, task, args, at, wait, reason = unpack(ARGV)
if (redis.call('HGET', record, 'fence') or '0') ~= fence then return 0 end
local found = redis.call('XRANGE', stream, entry, entry)[1]
if not found then return 0 end
local ours = { id = true, task = true, args = true, fence = true, at = true }
local more = {}
for f = 1, #found[2], 2 do
  if not ours[found[2][f]] then
    more[#more + 1], more[#more + 2] = found[2][f], found[2][f + 1]
  end
end
-- What can fail comes first: a script that fails is not rolled back.
redis.call('ZADD', delayed, now + wait, id)
redis.call('HSET', record, 'state', 'delayed', 'task', task, 'args', args, 'at', at)
if #more > 0 then redis.call('HSET', record, 'more', cjson.encode(more)) end
redis.call('HDEL', record, 'entry', 'stream')
redis.call('HINCRBY', record, 'fence', 1)
redis.call('XACK', stream, group, entry)
redis.call('XDEL', stream, entry)
if listening then tell(channels, queue, task, id, 'delayed', { due = now + wait, reason = reason }) end
return 1
