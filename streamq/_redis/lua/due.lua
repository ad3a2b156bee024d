#!lua flags=no-writes
-- Looks for delayed tasks whose time has come, by the server's clock.
-- KEYS: delayed set
-- ARGV: how many at most
-- Returns the ms until the next one is due (-1: there is none), then the ids of those that are.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local reply = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, ARGV[1])
local next_one = redis.call('ZRANGEBYSCORE', KEYS[1], '(' .. now, '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
table.insert(reply, 1, next_one[2] and next_one[2] - now or -1)
return reply
