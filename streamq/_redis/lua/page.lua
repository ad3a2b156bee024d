#!lua flags=no-writes
-- Reads messages of a stream, or dead letters, in their order, only so many as fit.
-- KEYS: stream
-- ARGV: first entry (with a bracket before it: the one after), last entry, how many at most, bytes that are enough
-- Returns the entries, each with its fields.
--@include page
local stream = KEYS[1]
return page(stream, ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4]))
