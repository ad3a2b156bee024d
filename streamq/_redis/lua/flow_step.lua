#!lua flags=allow-oom
-- Takes a flow a step on: tells nodes what they have still to be told, a bounded number, and finds those that are to be
-- enqueued; or, if the flow was cancelled, those that are to be cancelled.
-- KEYS: delayed set, outbox, index of flows, the keys of the flow
-- ARGV: group, event channels, queue, done channels, ms to keep what has ended, the flow's id, how many nodes at most,
--       node up to which it is cancelled (-1: none), then the nodes that were enqueued since the last step
-- Returns 'send' or 'cancel' or, if all is done, 'done'; what else of the outbox is new; then for each node: its
-- number, spec, what it shares, and its arguments, if they can be had here.
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
local most, swept = tonumber(ARGV[7]), tonumber(ARGV[8])
local flow = flow_at(4, ARGV[6], most)

local function done()
  redis.call('ZREM', home.outbox, 'flow:' .. flow.id)
  return { 'done', home.more }
end

local function describe(reply, n)
  local spec = spec_of(flow, n)
  local texts = redis.call('HMGET', flow.graph, n, 'like:' .. (spec.like or ''))
  local args = spec['in'] and fill(flow, spec) or spec.args or ''
  for _, word in ipairs({ n, texts[1] or '', texts[2] or '', args }) do reply[#reply + 1] = word end
end

local state = redis.call('HGET', flow.record, 'state')
if not state then return done() end
redis.call('ZADD', home.outbox, 'XX', now, 'flow:' .. flow.id) -- it is being seen to
if state == 'cancelled' then
  local reply, at = { 'cancel', home.more }, swept + 1
  local states = redis.call('GETRANGE', flow.states, at, at + 9999)
  for n = 1, #states do
    if string.sub(states, n, n) == 'r' then describe(reply, at + n - 1) end
    if #reply > 4 * most + 1 then break end
  end
  redis.call('DEL', flow.todo, flow.sends)
  for n = 2, #flow.keys do redis.call('PEXPIRE', flow.keys[n], home.ttl) end
  redis.call('ZADD', home.flows, 'XX', string.format('%.0f', now + home.ttl), flow.id)
  if #reply == 2 and #states < 10000 then
    redis.call('HSET', flow.record, 'left', 0) -- what has not begun never will
    rest(home, flow)
    return done()
  end
  -- If there are none here, there are more states to look at.
  if #reply == 2 then reply = { 'cancel', home.more, at + 9999, '', '', '' } end
  return reply
end
for at = 9, #ARGV do redis.call('LREM', flow.sends, 1, ARGV[at]) end
while flow.budget > 0 and redis.call('LLEN', flow.sends) < most do
  local item = redis.call('LINDEX', flow.todo, 0)
  if not item then break end
  local n, from = string.match(item, '^(.*):(%d+)$')
  local at = follow(home, flow, n, tonumber(from))
  if at then redis.call('LSET', flow.todo, 0, n .. ':' .. at) else redis.call('LPOP', flow.todo) end
  go_on(home, flow)
end
close(home, flow)
local reply = { 'send', home.more }
for _, n in ipairs(redis.call('LRANGE', flow.sends, 0, most - 1)) do
  -- What has ended was sent by somebody who did not come to say so; it is not to run again when its record has gone.
  if state_of(flow, n) == 'r' then describe(reply, n) else redis.call('LREM', flow.sends, 1, n) end
end
if redis.call('EXISTS', flow.todo, flow.sends) == 0 then return done() end
return reply
