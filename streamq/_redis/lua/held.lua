#!lua flags=no-writes
-- Counts those that wait for their turn.
-- KEYS: rooms
-- Returns how many are in them, all together.
local count = 0
for i = 1, #KEYS do count = count + redis.call('ZCARD', KEYS[i]) end
return count
