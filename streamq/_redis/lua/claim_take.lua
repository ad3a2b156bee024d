#!lua
-- Claims a name for a time, if nobody has it. Asked again by who has it, as after a lost answer, it is the same claim.
-- KEYS: claim
-- ARGV: token of who asks, ms for which it is claimed
-- Returns the token of who has it now.
local claim, token, ms = KEYS[1], ARGV[1], ARGV[2]
if redis.call('SET', claim, token, 'NX', 'PX', ms) then return token end
local holder = redis.call('GET', claim)
if holder == token then redis.call('PEXPIRE', claim, ms) end
return holder
