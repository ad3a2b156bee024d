-- A flow, as far as scripts see it. What its keys hold is explained in streamq/broker/flows.py.
-- `home` is what a script says of the flow's queue: its name, group, event channels, delayed set, outbox, index of
-- flows, channels of clients, ms to keep what has ended; and `more`: what of the outbox is new.
local function flow_at(first, id, budget)
  local flow = { id = id, keys = { unpack(KEYS, first, first + 6) }, budget = budget, near = {}, work = {} }
  flow.specs, flow.known, flow.ended, flow.waiting = {}, { start = 's' }, 0, {} -- the last two: for `close` to write
  flow.record, flow.states, flow.waits, flow.graph, flow.results, flow.todo, flow.sends = unpack(flow.keys)
  return flow
end

local function spec_of(flow, n)
  local name = tostring(n)
  flow.specs[name] = flow.specs[name] or cjson.decode(redis.call('HGET', flow.graph, name) or '{}')
  return flow.specs[name]
end

local function call_of(flow, spec)
  return spec_of(flow, 'like:' .. spec.like)
end

local function state_of(flow, n)
  local name = tostring(n)
  flow.known[name] = flow.known[name] or redis.call('GETRANGE', flow.states, n, n)
  return flow.known[name]
end

local function set_state(flow, n, state)
  redis.call('SETRANGE', flow.states, n, state)
  flow.known[tostring(n)] = state
end

-- Notes what is still to be done, for any worker to carry on. Whoever has noted it before is at it.
local noted = {}
local function later(home, member)
  if noted[member] then return end
  noted[member] = true
  if redis.call('ZADD', home.outbox, 'NX', now, member) == 1 then home.more[#home.more + 1] = member end
end
