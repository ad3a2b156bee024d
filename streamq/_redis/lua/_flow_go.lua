-- How a flow goes on: what has ended tells each node that follows, once; beyond a bound it is noted where to go on.
--@include flow_near
--@include flow_fill

-- Has a node begin: here, if its keys are known and it is to be enqueued on this queue without further ado.
local function release(home, flow, m, spec)
  flow.state = flow.state or redis.call('HGET', flow.record, 'state')
  if flow.state == 'cancelled' then return end_node(home, flow, m, 'c') end
  local call, near = call_of(flow, spec), flow.near[m]
  set_state(flow, m, 'r')
  if not near or call.queue or call.terms then
    redis.call('RPUSH', flow.sends, m)
    return later(home, 'flow:' .. flow.id)
  end
  local args, id = spec['in'] and fill(flow, spec) or spec.args, flow.id .. '.' .. m
  home.is_new = open(near.stream, home.group) or home.is_new
  local delay, options = call.delay or 0, call.options
  put(near.stream, home.delayed, near.record, home.channels, home.queue, id, call.task, args, delay, options)
end

-- Tells a node that one before it has ended; `kind` is 'err' if it is there for when that does not succeed.
local function arrive(home, flow, n, state, m, kind)
  if state_of(flow, m) ~= 'w' then return end
  local spec, has_failed = spec_of(flow, m), failing[state] or false
  if state == 'o' or (kind == 'err' and not has_failed) then return end_node(home, flow, m, 'o') end
  if has_failed and kind == 'to' and (spec.join or 'fail') == 'fail' then return end_node(home, flow, m, 'k', n) end
  if (spec.deps or 1) > 1 then
    local waits = flow.waiting[m] or redis.call('HGET', flow.waits, m) or spec.deps
    flow.waiting[m] = waits - 1
    if flow.waiting[m] > 0 then return end
  end
  if spec.join then return end_node(home, flow, m, 's') end
  release(home, flow, m, spec)
end

-- Tells those that follow a node, from a position on; returns where to go on if there are too many.
local function follow(home, flow, n, from)
  local spec, state, position = spec_of(flow, n), state_of(flow, n), 0
  for _, kind in ipairs({ 'to', 'err' }) do
    for _, ref in ipairs(spec[kind] or {}) do
      local first, last, step = ref, ref, 1
      if type(ref) == 'table' then first, last, step = unpack(ref) end
      local count = math.floor((last - first) / step) + 1
      local skip = math.min(count, math.max(0, from - position))
      for m = first + skip * step, last, step do
        if flow.budget <= 0 then return position + skip end
        flow.budget, skip = flow.budget - 1, skip + 1
        arrive(home, flow, n, state, m, kind)
      end
      position = position + count
    end
  end
end

-- Follows all that has ended.
local function go_on(home, flow)
  while #flow.work > 0 do
    local n = table.remove(flow.work)
    local at = follow(home, flow, n, 0)
    if at then
      redis.call('RPUSH', flow.todo, n .. ':' .. at)
      later(home, 'flow:' .. flow.id)
    end
  end
end

-- Writes what was counted, tells those who watch a flow, and lets go of it if it is over; after all else.
local function close(home, flow)
  for m, waits in pairs(flow.waiting) do redis.call('HSET', flow.waits, m, waits) end
  if flow.ended == 0 then return end
  redis.call('HINCRBY', flow.record, 'left', -flow.ended)
  local watchers = redis.call('HGET', flow.record, 'watchers')
  for client in string.gmatch(watchers or '', '%S+') do redis.call('PUBLISH', home.done .. client, flow.id) end
  rest(home, flow)
end
