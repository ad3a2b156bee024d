#!lua flags=no-writes
-- Reads how nodes of a flow have ended, and with what.
-- KEYS: states of the flow's nodes, results
-- ARGV: bytes at most, then the nodes
-- Returns for each, one at least: the character of its state, and its result or error, if it has one.
local replies, size = {}, 0
for i = 2, #ARGV do
  local body = redis.call('HGET', KEYS[2], ARGV[i])
  size = size + (body and #body or 0)
  if i > 2 and size > tonumber(ARGV[1]) then break end
  replies[2 * i - 3], replies[2 * i - 2] = redis.call('GETRANGE', KEYS[1], ARGV[i], ARGV[i]), body
end
return replies
