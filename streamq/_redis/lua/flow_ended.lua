#!lua flags=no-writes
-- Reads how tasks of flows have ended, for their flows to be told.
-- KEYS: a record for each task
-- ARGV: bytes at most
-- Returns for each, one at least: state, where its flow lives, the node whose value is its own, if it has become a flow
-- itself, its result or error, and 1 if that flow adds to its result; nothing for what is not known.
local replies, size = {}, 0
for i = 1, #KEYS do
  local state, home, out, own, result, failure =
    unpack(redis.call('HMGET', KEYS[i], 'state', 'flow', 'out', 'own', 'result', 'error'))
  local body = result or failure or ''
  size = size + #body
  if i > 1 and size > tonumber(ARGV[1]) then break end
  replies[i] = { state or '', home or '', out or '', body, own and 1 or 0 }
end
return replies
