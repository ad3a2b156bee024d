#!lua
-- Writes a part of the graph of a flow that has not begun. It goes by itself if the flow never begins.
-- KEYS: the flow's record, states of its nodes, its graph
-- ARGV: fence of the task that becomes the flow (empty: the flow is new), ms to keep the part, the part (see
--       write_part)
-- Returns 1; 0 if the flow has begun, or the task is another worker's.
--@include flow_write
local record, states, graph, fence, ttl = KEYS[1], KEYS[2], KEYS[3], ARGV[1], ARGV[2]
local state, current = unpack(redis.call('HMGET', record, 'state', 'fence'))
if fence == '' and state or fence ~= '' and (state ~= 'queued' or (current or '0') ~= fence) then return 0 end
write_part(states, graph, 3)
redis.call('PEXPIRE', states, ttl)
redis.call('PEXPIRE', graph, ttl)
return 1
