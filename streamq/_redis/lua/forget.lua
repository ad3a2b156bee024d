#!lua flags=allow-oom
-- Deletes all that is kept of a task that has ended, and of the flow that it may be; of another, when it has ended, and
-- of a flow when nothing of it can happen any more.
-- KEYS: chunks, outbox, index of flows, the keys of the flow that it may be, the first of which is its record
-- ARGV: id
-- Returns 0 if there is no record; the name of the queue where the task is now, if it was moved.
local record, outbox, id = KEYS[4], KEYS[2], ARGV[1]
local state, ended, moved_to, left = unpack(redis.call('HMGET', record, 'state', 'ended', 'moved_to', 'left'))
if not state then return 0 end
if moved_to then return moved_to end
local goes_on = redis.call('ZSCORE', outbox, 'end:' .. id) or redis.call('ZSCORE', outbox, 'flow:' .. id)
if left and tonumber(left) > 0 and state ~= 'cancelled' then goes_on = true end
if not ended or goes_on then
  redis.call('HSET', record, 'forget', '1')
else
  redis.call('DEL', KEYS[1], unpack(KEYS, 4))
  redis.call('ZREM', KEYS[3], id)
end
return 1
