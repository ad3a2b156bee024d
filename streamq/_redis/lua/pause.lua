#!lua flags=allow-oom
-- Has nobody fetch from a queue any more, until the key is deleted.
-- KEYS: key of the pause
-- Returns 1 if the queue was not paused before.
--@include now
if redis.call('EXISTS', KEYS[1]) == 1 then return 0 end
redis.call('SET', KEYS[1], now)
return 1
