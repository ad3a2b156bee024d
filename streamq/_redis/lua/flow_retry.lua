#!lua
-- Has nodes of a flow that have failed run again, and has wait again what waits for them: all of them, or none if one
-- is not as it was, or something that has ended has still to be told to those that follow.
-- KEYS: delayed set, outbox, index of flows, the keys of the flow
-- ARGV: group, event channels, queue, done channels, ms to keep what has ended, the flow's id, nodes that are to be
--       enqueued (refs, JSON), the characters of their states, those that are to wait (JSON): for each the node, the
--       character of its state, those before it (refs), and 1 if none of these may have failed
-- Returns 1, 0 if nothing was done, -1 if there is no such flow.
--@include now
--@include events
--@include settle
--@include level
--@include put
--@include open
--@include flow
--@include flow_end
--@include flow_go
--@include flow_revive
local home = { more = {} }
home.delayed, home.outbox, home.flows = KEYS[1], KEYS[2], KEYS[3]
home.group, home.channels, home.queue, home.done, home.ttl = unpack(ARGV, 1, 5)
local flow, waiting = flow_at(4, ARGV[6], 200), cjson.decode(ARGV[9])
local states, out = redis.call('GETRANGE', flow.states, 0, -1), redis.call('HGET', flow.record, 'out')
if not out or states == '' or redis.call('EXISTS', flow.graph) == 0 then return -1 end
local found = revival(states, cjson.decode(ARGV[7]), ARGV[8], waiting)
if not found or redis.call('EXISTS', flow.todo) == 1 then return 0 end

local send, first = found.send, 1 -- there may be very many, most of them in runs
for at, n in ipairs(send) do
  if send[at + 1] ~= n + 1 or at - first == 999 then
    redis.call('SETRANGE', flow.states, send[first], string.rep('r', at + 1 - first))
    redis.call('HDEL', flow.results, unpack(send, first, at))
    redis.call('RPUSH', flow.sends, unpack(send, first, at))
    first = at + 1
  end
end
for _, one in ipairs(waiting) do
  redis.call('SETRANGE', flow.states, one[1], 'w')
  redis.call('HDEL', flow.results, one[1])
  redis.call('HSET', flow.waits, one[1], one.count)
end
redis.call('HSET', flow.record, 'left', found.left)
redis.call('HDEL', flow.record, 'told')
if found.again[tonumber(out)] then
  redis.call('HDEL', flow.record, 'ended', 'error', 'result')
  redis.call('HSET', flow.record, 'state', 'running')
end
for n = 1, #flow.keys do redis.call('PERSIST', flow.keys[n]) end
redis.call('ZADD', home.flows, 'inf', flow.id)
later(home, 'flow:' .. flow.id)
for _, one in ipairs(waiting) do
  local n = one[1]
  if one.count == 0 and state_of(flow, n) == 'w' then
    local spec = spec_of(flow, n)
    if spec.join then
      end_node(home, flow, n, 's')
    else
      release(home, flow, n, spec)
    end
  end
end
go_on(home, flow)
close(home, flow)
return 1
