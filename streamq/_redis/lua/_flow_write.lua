-- Writes a part of a flow's graph. From `at` on ARGV has: 1 if this is the first part, number of runs of states, for
-- each the first node and the states, then names and specs.
local function write_part(states, graph, at)
  if ARGV[at] == '1' then redis.call('DEL', states, graph) end
  local fields = at + 2 + 2 * ARGV[at + 1]
  for run = at + 2, fields - 1, 2 do redis.call('SETRANGE', states, ARGV[run], ARGV[run + 1]) end
  if fields <= #ARGV then redis.call('HSET', graph, unpack(ARGV, fields)) end
end
