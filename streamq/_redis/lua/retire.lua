#!lua flags=allow-oom
-- Removes a consumer from a stream's group, but never one that has pending entries: they would be lost.
-- KEYS: stream
-- ARGV: group, consumer
-- Returns 1 if it is gone, 0 if it still has work.
if redis.call('EXISTS', KEYS[1]) == 0 then return 1 end
if redis.call('XPENDING', KEYS[1], ARGV[1], '-', '+', 1, ARGV[2])[1] then return 0 end
redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], ARGV[2])
return 1
