#!lua flags=no-writes
-- Reads the records of what is being moved, in their order, only so many as fit: one can have a megabyte and more.
-- KEYS: a record for each message
-- ARGV: bytes that are enough
-- Returns the fields and values of each, up to the one that goes past these bytes.
local found, room = {}, tonumber(ARGV[1])
for i = 1, #KEYS do
  if room <= 0 then break end
  found[i] = redis.call('HGETALL', KEYS[i])
  for _, word in ipairs(found[i]) do room = room - #word end
end
return found
