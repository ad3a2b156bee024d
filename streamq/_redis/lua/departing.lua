#!lua flags=no-writes
-- Reads the records of what is being moved.
-- KEYS: a record for each message
-- Returns the fields and values of each.
local found = {}
for i = 1, #KEYS do found[i] = redis.call('HGETALL', KEYS[i]) end
return found
