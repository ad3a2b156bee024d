#!lua flags=no-writes
-- Looks for delayed tasks whose time has come, by the server's clock; and at what else of a queue can change.
-- KEYS: delayed set, key of a pause, set of what is being moved, the streams of the levels from 0
-- ARGV: how many at most
-- Returns the ms until the next one is due (-1: there is none), 1 if the queue is paused, 1 if something is being
-- moved, the levels whose streams are there, and the ids of those that are due.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local paused, moving, levels = redis.call('EXISTS', KEYS[2]), redis.call('EXISTS', KEYS[3]), {}
for i = 4, #KEYS do
  if redis.call('EXISTS', KEYS[i]) == 1 then levels[#levels + 1] = i - 4 end
end
local found = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, ARGV[1])
local next_one = redis.call('ZRANGEBYSCORE', KEYS[1], '(' .. now, '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
return { next_one[2] and next_one[2] - now or -1, paused, moving, levels, found }
