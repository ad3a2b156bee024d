#!lua flags=no-writes
-- Reads what is known of tasks that wait outside the streams: so much as tells whether they are meant.
-- KEYS: a record for each task
-- Returns for each record: the state, the task, and when it was first enqueued, ms; empty what is not there.
local found = {}
for i = 1, #KEYS do
  local state, task, at = unpack(redis.call('HMGET', KEYS[i], 'state', 'task', 'at'))
  found[i] = { state or '', task or '', at or '' }
end
return found
