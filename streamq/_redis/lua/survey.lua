#!lua flags=no-writes
-- Reads which tasks the messages of a stream are of, in their order, and nothing else of them.
-- KEYS: stream
-- ARGV: first entry (with a bracket before it: the one after), last entry, how many at most, bytes that are enough
-- Returns for each message: its entry, id and task (each empty if there is none), and when it was first enqueued, ms.
--@include page
local stream = KEYS[1]
local found = page(stream, ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4]))
for i, message in ipairs(found) do
  local entry, fields, known = message[1], message[2], {}
  for f = 1, #fields, 2 do known[fields[f]] = fields[f + 1] end
  found[i] = { entry, known.id or '', known.task or '', known.at or string.match(entry, '^%d+') }
end
return found
