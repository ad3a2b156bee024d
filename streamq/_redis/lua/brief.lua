#!lua flags=no-writes
-- Reads what is known of tasks that wait outside the streams: so much as tells whether they are meant.
-- KEYS: a record for each task
-- Returns for each record: the task, and when it was first enqueued, ms; both empty if there is none.
local found = {}
for i = 1, #KEYS do
  local task, at = unpack(redis.call('HMGET', KEYS[i], 'task', 'at'))
  found[i] = { task or '', at or '' }
end
return found
