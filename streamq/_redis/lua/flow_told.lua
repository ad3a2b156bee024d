#!lua flags=allow-oom
-- Tells flows that nodes have ended whose tasks lie in the slot of another queue, or were not ended by a worker's
-- commit.
-- KEYS: delayed set, outbox, index of flows, then for each node the keys of its flow
-- ARGV: group, event channels, queue, done channels, ms to keep what has ended, then for each node: the flow's id,
--       node, character of its state, result or error, and values that its group gets after its own (JSON without
--       brackets; empty: none)
-- Returns what of the outbox is new.
--@include now
--@include events
--@include settle
--@include level
--@include put
--@include open
--@include flow
--@include flow_end
--@include flow_go
local home = { more = {} }
home.delayed, home.outbox, home.flows = KEYS[1], KEYS[2], KEYS[3]
home.group, home.channels, home.queue, home.done, home.ttl = unpack(ARGV, 1, 5)
for at = 6, #ARGV, 5 do
  local flow = flow_at(4 + 7 * (at - 6) / 5, ARGV[at], 32)
  local n, state, body, more = unpack(ARGV, at + 1, at + 4)
  if more ~= '' and state_of(flow, n) == 'r' then
    local others = redis.call('HGET', flow.results, '+') or ''
    redis.call('HSET', flow.results, '+', others .. n .. ' ', '+' .. n, more)
  end
  end_node(home, flow, n, state, body)
  go_on(home, flow)
  close(home, flow)
end
return home.more
