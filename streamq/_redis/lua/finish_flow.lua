#!lua flags=allow-oom
-- Commits the outcomes of tasks of flows as `finish` does, and has what follows begin in the same step. If the flow
-- lives in the slot of another queue, the outcome is noted for it to be told.
-- KEYS: stream the messages came from, delayed set, outbox, index of flows, then for each flow that lives here: its
--       keys, and of each node that may follow: record, stream of its level; then the record for each outcome
-- ARGV: group, event channels, queue, done channels, worker, ms to keep records, number of flows that live here, for
--       each of them: id, number of nodes that may follow, these nodes; then for each outcome: entry, fence, state,
--       body, id, task, its flow (0: it lives elsewhere), node, outermost flow (empty: it is that)
-- Returns the positions of the outcomes that were refused, and what of the outbox is new.
--@include now
--@include events
--@include settle
--@include level
--@include put
--@include open
--@include leave
--@include flow
--@include flow_end
--@include flow_go
local stream, worker, budget = KEYS[1], ARGV[5], 32 -- of what one outcome leads to
local characters = { succeeded = 's', failed = 'f', expired = 'x' }
local home = { more = {} }
home.delayed, home.outbox, home.flows = KEYS[2], KEYS[3], KEYS[4]
home.group, home.channels, home.queue, home.done = unpack(ARGV, 1, 4)
home.ttl = ARGV[6]
local flows, key, word = {}, 5, 8
for n = 1, ARGV[7] do
  local count = ARGV[word + 1]
  flows[n] = flow_at(key, ARGV[word], 0)
  find_near(flows[n], word + 2, count, key + 7)
  key, word = key + 7 + 2 * count, word + 2 + count
end

local function commit(record, state, body, id, task, flow, n, root, waiters, forget)
  settle(record, state, body, waiters, flow and forget, home.done, id, home.ttl)
  if listening then
    local failure = state == 'failed' and string.match(body, '^{"type":"([^"]*)"') or nil
    local place = { id = string.match(id, '^(.*)%.'), root = root ~= '' and root or nil }
    tell(home.channels, home.queue, task, id, state, { worker = worker, error = failure, flow = place })
  end
  if flow then
    flow.budget = budget
    end_node(home, flow, n, characters[state], body)
    go_on(home, flow)
  elseif leave(home.outbox, record, id) then
    home.more[#home.more + 1] = 'end:' .. id
  end
end

local refused, ended, position = {}, {}, 0
for at = word, #ARGV, 9 do
  local record, flow = KEYS[key], flows[tonumber(ARGV[at + 6])]
  local entry, fence, state, body, id, task, _, n, root = unpack(ARGV, at, at + 8)
  local was, current, its_entry, waiters, forget =
    unpack(redis.call('HMGET', record, 'state', 'fence', 'entry', 'waiters', 'forget'))
  if was and ((current or '0') ~= fence or (its_entry or entry) ~= entry) then
    refused[#refused + 1] = position
  else
    ended[#ended + 1] = entry
    if was == 'queued' then commit(record, state, body, id, task, flow, n, root, waiters, forget) end
  end
  key, position = key + 1, position + 1
end
for _, flow in ipairs(flows) do close(home, flow) end
if #ended > 0 then
  redis.call('XACK', stream, home.group, unpack(ended))
  redis.call('XDEL', stream, unpack(ended))
end
return { refused, home.more }
