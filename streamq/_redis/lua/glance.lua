#!lua flags=no-writes
-- Reads some fields of records.
-- KEYS: the records
-- ARGV: the fields
-- Returns for each record the values of these fields.
local replies = {}
for n = 1, #KEYS do
  replies[n] = redis.call('HMGET', KEYS[n], unpack(ARGV))
end
return replies
