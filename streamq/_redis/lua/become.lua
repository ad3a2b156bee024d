#!lua flags=allow-oom
-- Has a task become a flow, and writes the last part of its graph: the task's message goes, and its record is the
-- flow's from now on. It ends as the flow does.
-- KEYS: delayed set, outbox, index of flows, the keys of the flow, stream the message came from, then for each node
--       that begins: record, stream
-- ARGV: group, event channels, queue, done channels, ms to keep what has ended, the task's id, label, node whose value
--       is the flow's, number of nodes, entry, fence, the task's own result, if the flow only adds to it (else empty),
--       number of those that begin, these, and the part (see write_part)
-- Returns 1, and 2 more if there is more to do; 0 if the task is another worker's by now; -1 if what was written of its
-- graph has gone.
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
local flow, stream = flow_at(4, ARGV[6], 200), KEYS[11]
local label, out, size, entry, fence, own, roots = unpack(ARGV, 7, 13)
local state, current, its_entry, before = unpack(redis.call('HMGET', flow.record, 'state', 'fence', 'entry', 'out'))
if (current or '0') ~= fence or (its_entry or entry) ~= entry then return 0 end
if before then return 3 end -- our own commit, whose reply was lost
if state ~= 'queued' then return 0 end
if ARGV[14 + roots] ~= '1' and redis.call('EXISTS', flow.graph) == 0 then return -1 end
write_part(flow.states, flow.graph, 14 + roots)
find_near(flow, 14, roots, 12)
if own ~= '' then redis.call('HSET', flow.record, 'own', own) end
redis.call('HDEL', flow.record, 'entry', 'stream')
launch(home, flow, label, out, size)
redis.call('XACK', stream, home.group, entry)
redis.call('XDEL', stream, entry)
return #home.more > 0 and 3 or 1
