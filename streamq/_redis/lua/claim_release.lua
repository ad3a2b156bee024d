#!lua flags=allow-oom
-- Ends a claim, if it is still that of who asks.
-- KEYS: claim
-- ARGV: token of who asks
-- Returns 1, or 0 if it is not.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])
