#!lua flags=allow-oom
-- Takes over messages of a group whose consumer has given no sign of life for a lease, looking at a bounded number.
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
return { found[1], found[2], deliveries, #(found[3] or {}) }
