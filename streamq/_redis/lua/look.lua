#!lua flags=no-writes
-- Reads a task's record, and who holds its entry.
-- KEYS: record, returned stream, then the streams of the levels from 0
-- ARGV: group
-- Returns the record's fields and values, and the pending entry (id, consumer, idle ms, deliveries) or nothing.
local fields = redis.call('HGETALL', KEYS[1])
local known = {}
for i = 1, #fields, 2 do known[fields[i]] = fields[i + 1] end
if known.state ~= 'queued' then return { fields } end
local stream = known.stream == 'returned' and KEYS[2] or KEYS[3 + (known.stream or 5)]
local pending = redis.pcall('XPENDING', stream, ARGV[1], known.entry, known.entry, 1)
return { fields, pending[1] }
