-- Has a flow begin whose graph is written: what waits for nothing is released.
local function launch(home, flow, label, out, size)
  redis.call('DEL', flow.waits, flow.results, flow.todo, flow.sends) -- an id may have been forgotten, and be used anew
  local about = { 'state', 'running', 'label', label, 'out', out, 'size', size, 'left', size, 'made', now }
  redis.call('HSET', flow.record, unpack(about))
  redis.call('PERSIST', flow.states)
  redis.call('PERSIST', flow.graph)
  redis.call('ZREMRANGEBYSCORE', home.flows, '-inf', '(' .. string.format('%.0f', now))
  redis.call('ZADD', home.flows, 'inf', flow.id)
  flow.work = { 'start' }
  go_on(home, flow)
  close(home, flow)
end
