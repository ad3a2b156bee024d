#!lua flags=allow-oom
-- Removes a schedule.
-- KEYS: timetable: next instants, definitions, instants fired, declarations
-- ARGV: name, its declaration as the caller has read it (nothing: whatever that is)
-- Returns 1; 0 if it is not there, or a worker has declared it again meanwhile.
local upcoming, definitions, fired, declared = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local name, declaration = ARGV[1], ARGV[2]
if declaration ~= '' and redis.call('HGET', declared, name) ~= declaration then return 0 end
redis.call('ZREM', upcoming, name)
redis.call('HDEL', fired, name)
redis.call('HDEL', declared, name)
return redis.call('HDEL', definitions, name)
