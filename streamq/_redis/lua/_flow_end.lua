-- How nodes end, each once, and with the last of them the flow.
local failing = { f = true, d = true, c = true, x = true, k = true }

-- Says why a node has failed: the error of the one where that began, and the way from there.
local function blame(flow, n)
  local path, state = {}, state_of(flow, n)
  while true do
    local spec = spec_of(flow, n)
    table.insert(path, 1, { tonumber(n), spec.like and call_of(flow, spec).task or 'group' })
    if state ~= 'k' or #path == 1000 then break end
    n = redis.call('HGET', flow.results, n)
    state = state_of(flow, n)
  end
  local failure = redis.call('HGET', flow.results, n)
  if not failure or failure == '' then failure = '{"type":"","message":"","args":null,"traceback":""}' end
  return '{"path":' .. cjson.encode(path) .. ',"failed":' .. cjson.encode(flow.id .. '.' .. n) .. ','
    .. string.sub(failure, 2)
end

-- Has a flow end as its last node did; one that is a task of another flow is to be told there.
local function conclude(home, flow, n, state)
  local was, waiters, parent, task, own =
    unpack(redis.call('HMGET', flow.record, 'state', 'waiters', 'flow', 'task', 'own'))
  if was ~= 'running' then return end
  local is_good = state == 's'
  local word = is_good and 'succeeded' or 'failed'
  local body = is_good and (own or redis.call('HGET', flow.results, n) or '') or blame(flow, n)
  settle(flow.record, word, body, waiters, false, home.done, flow.id, home.ttl)
  if task and listening then tell(home.channels, home.queue, task, flow.id, word) end
  redis.call('PERSIST', flow.record) -- `rest` lets go of it
  if parent then later(home, 'end:' .. flow.id) end
end

local function end_node(home, flow, n, state, body)
  local was = state_of(flow, n)
  if was ~= 'w' and was ~= 'r' then return end
  flow.out = flow.out or redis.call('HGET', flow.record, 'out')
  if not flow.out then return end -- the flow was deleted
  set_state(flow, n, state)
  if body then redis.call('HSET', flow.results, n, body) end
  flow.ended = flow.ended + 1
  if flow.out == tostring(n) then conclude(home, flow, n, state) end
  flow.work[#flow.work + 1] = n
end

-- Lets go of a flow when nothing of it can happen any more, and nobody has still to be told how it ended.
local function rest(home, flow)
  local left, parent, told, forget = unpack(redis.call('HMGET', flow.record, 'left', 'flow', 'told', 'forget'))
  if not left or tonumber(left) > 0 or (parent and not told) then return end
  if forget then
    redis.call('DEL', unpack(flow.keys))
    redis.call('ZREM', home.flows, flow.id)
    return
  end
  for n = 1, #flow.keys do redis.call('PEXPIRE', flow.keys[n], home.ttl) end
  redis.call('ZADD', home.flows, 'XX', string.format('%.0f', now + home.ttl), flow.id)
end
