#!lua flags=allow-oom
-- Takes over messages of a group whose consumer has given no sign of life for a lease, looking at a bounded number.
-- Consumers that have nothing, and have asked for nothing in a lease and a minute, are removed.
-- KEYS: log
-- ARGV: group, consumer, lease in ms, cursor, how many at most
-- Returns the next cursor, the messages, how often each was handed over, and how many were gone from the log.
local log = KEYS[1]
local group, consumer, lease, cursor, count = unpack(ARGV)
local found = redis.pcall('XAUTOCLAIM', log, group, consumer, lease, cursor, 'COUNT', count)
if found.err then return { '0-0', {}, {}, 0 } end -- there is no group yet
local deliveries = {}
for i, entry in ipairs(found[2]) do
  local pending = redis.call('XPENDING', log, group, entry[1], entry[1], 1)[1]
  deliveries[i] = pending and pending[4] or 1
end
if found[1] == '0-0' then -- once in a round: members that have left with messages, or died, would be there for ever
  for _, one in ipairs(redis.call('XINFO', 'CONSUMERS', log, group)) do
    if one[4] == 0 and one[6] > lease + 60000 then redis.call('XGROUP', 'DELCONSUMER', log, group, one[2]) end
  end
end
return { found[1], found[2], deliveries, #(found[3] or {}) }
