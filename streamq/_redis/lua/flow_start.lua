#!lua
-- Writes the last part of a flow's graph, which is all of it if the flow is small, and has the flow begin, once.
-- KEYS: delayed set, outbox, index of flows, the keys of the flow, then for each node that begins: record, stream
-- ARGV: group, event channels, queue, done channels, ms to keep what has ended, the flow's id, label, node whose value
--       is its own, number of nodes, number of those that begin, these, and the part (see write_part)
-- Returns 1, and 2 more if there is more to do, and 4 more if the queue may be new; 0 if it has begun before; -1 if
-- what was written of its graph has gone.
--@include now
--@include events
--@include settle
--@include level
--@include put
--@include open
--@include flow
--@include flow_end
--@include flow_go
--@include flow_write
--@include flow_begin
local home = { more = {} }
home.delayed, home.outbox, home.flows = KEYS[1], KEYS[2], KEYS[3]
home.group, home.channels, home.queue, home.done, home.ttl = unpack(ARGV, 1, 5)
local flow = flow_at(4, ARGV[6], 200)
local label, out, size, roots = unpack(ARGV, 7, 10)
local state = redis.call('HGET', flow.record, 'state')
if state then
  redis.call('HSET', flow.record, 'state', state) -- a write, for WAIT to wait for: the first may not have arrived
  return 0
end
if ARGV[11 + roots] ~= '1' and redis.call('EXISTS', flow.graph) == 0 then return -1 end
write_part(flow.states, flow.graph, 11 + roots)
find_near(flow, 11, roots, 11)
launch(home, flow, label, out, size)
return 1 + (#home.more > 0 and 2 or 0) + (home.is_new and 4 or 0)
