#!lua flags=no-writes
-- Reads how nodes of a flow stand, and which tasks they are of.
-- KEYS: states of the flow's nodes, its graph
-- ARGV: bytes that may be looked at, then the nodes
-- Returns for each, one at least: the character of its state, the name of its task (empty: it is a join), its queue
-- (empty: that of the flow), and the options of its message.
local states, graph = KEYS[1], KEYS[2]
local replies, calls, size = {}, {}, 0
for i = 2, #ARGV do
  local spec = redis.call('HGET', graph, ARGV[i]) or ''
  size = size + #spec
  if i > 2 and size > tonumber(ARGV[1]) then break end
  local like = string.match(spec, '^{"like":(%d+)') or ''
  calls[like] = calls[like] or cjson.decode(redis.call('HGET', graph, 'like:' .. like) or '{}')
  local state = redis.call('GETRANGE', states, ARGV[i], ARGV[i])
  local call = calls[like]
  size = size + #(call.options or '')
  replies[#replies + 1] = { state, call.task or '', call.queue or '', call.options or '' }
end
return replies
