#!lua flags=allow-oom
-- Deletes the record and the chunks of an ended task; the record of another will be deleted when it ends.
-- KEYS: record, chunks
-- Returns 0 if there is no record; the name of the queue where the task is now, if it was moved.
local state, ended, moved_to = unpack(redis.call('HMGET', KEYS[1], 'state', 'ended', 'moved_to'))
if not state then return 0 end
if moved_to then return moved_to end
if ended then
  redis.call('DEL', KEYS[1], KEYS[2])
else
  redis.call('HSET', KEYS[1], 'forget', '1')
end
return 1
