#!lua flags=allow-oom
-- Reads how a flow stands, and notes a client to be told when it goes on; of one that does not, nobody is noted.
-- KEYS: the flow's record, states of its nodes
-- ARGV: client (empty: none), 'waiters' to be told when the flow ends or 'watchers' to be told when any node does, the
--       first and the last node whose states are wanted
-- Returns nothing if there is no record, else state, the queue where the task is now, if it was moved, node whose
-- value is the flow's, number of nodes, how many of them have not ended, the states, and, for 'waiters', its result or
-- error; the empty string for what is not there: it is no flow, or not yet.
--@include note
local record, states, client, field = KEYS[1], KEYS[2], ARGV[1], ARGV[2]
local state, moved_to, out, size, left, ended, waiters, watchers =
  unpack(redis.call('HMGET', record, 'state', 'moved_to', 'out', 'size', 'left', 'ended', 'waiters', 'watchers'))
if not state then return {} end
local body
if field == 'waiters' then
  if client ~= '' and not ended then note(record, field, waiters, client) end
  body = redis.call('HGET', record, 'result') or redis.call('HGET', record, 'error')
elseif client ~= '' and not moved_to and tonumber(left or 1) > 0 then
  note(record, field, watchers, client)
end
local found = out and redis.call('GETRANGE', states, ARGV[3], ARGV[4])
return { state, moved_to or '', out or '', size or '', left or '', found or '', body or '' }
