#!lua flags=allow-oom
-- Has a claim last for a time from now on, if it is still that of who asks.
-- KEYS: claim
-- ARGV: token of who asks, ms
-- Returns 1, or 0 if it is not.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
