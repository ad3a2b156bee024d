#!lua flags=allow-oom
-- Deletes the record of an ended task; that of another will be deleted when it ends.
-- KEYS: record
-- Returns 0 if there is no record.
local state, ended = unpack(redis.call('HMGET', KEYS[1], 'state', 'ended'))
if not state then return 0 end
if ended then
  redis.call('DEL', KEYS[1])
else
  redis.call('HSET', KEYS[1], 'forget', '1')
end
return 1
