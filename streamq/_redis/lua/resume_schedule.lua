#!lua
-- Has a paused schedule be due again.
-- KEYS: timetable: next instants, definitions
-- ARGV: name, next instant
-- Returns 1; 0 if it is not paused, or not there.
local upcoming, definitions = KEYS[1], KEYS[2]
if redis.call('HEXISTS', definitions, ARGV[1]) == 0 then return 0 end
return redis.call('ZADD', upcoming, 'NX', ARGV[2], ARGV[1])
