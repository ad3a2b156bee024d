#!lua flags=allow-oom
-- Acknowledges messages of a group, of those only that the consumer still has.
-- KEYS: log
-- ARGV: group, consumer, then the entries
-- Returns those that are another's by now.
local log, group, consumer = KEYS[1], ARGV[1], ARGV[2]
local lost = {}
for i = 3, #ARGV do
  local pending = redis.pcall('XPENDING', log, group, ARGV[i], ARGV[i], 1)[1]
  if pending and pending[2] == consumer then
    redis.call('XACK', log, group, ARGV[i])
  else
    lost[#lost + 1] = ARGV[i]
  end
end
return lost
