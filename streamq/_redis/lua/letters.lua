#!lua flags=no-writes
-- Reads dead letters in their order, only so many as fit: one can have a megabyte and more.
-- KEYS: dead letters
-- ARGV: first entry (with a bracket before it: the one after), last entry, how many at most, bytes that are enough
-- Returns the entries, each with its fields.
local first, last, most, room = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local found = {}
while #found < most and room > 0 do
  local letter = redis.call('XRANGE', KEYS[1], first, last, 'COUNT', 1)[1]
  if not letter then break end
  found[#found + 1] = letter
  first = '(' .. letter[1]
  for _, word in ipairs(letter[2]) do room = room - #word end
end
return found
