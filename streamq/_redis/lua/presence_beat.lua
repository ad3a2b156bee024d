#!lua flags=allow-oom
-- Notes that one is there, and tells it if that is new; removes those who gave no sign of life.
-- KEYS: seen, info, told
-- ARGV: channel, member, who it is as a JSON object, ms for which this holds
-- Returns the server's time in ms.
--@include now
local seen, info, told = KEYS[1], KEYS[2], KEYS[3]
local channel, member, who, holds = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
--@include presence
local is_new = redis.call('ZADD', seen, now + holds, member) == 1
redis.call('HSET', info, member, who)
redis.call('PEXPIRE', seen, hour)
redis.call('PEXPIRE', info, hour)
if is_new then tell('joined', who) end
remove_overdue()
return now
