#!lua flags=no-writes
-- Looks for delayed tasks, and for rooms where tasks wait for their turn, whose time has come, by the server's clock;
-- and at what else of a queue can change.
-- KEYS: delayed set, rooms, key of a pause, set of what is being moved, the streams of the levels from 0
-- ARGV: how many at most of each
-- Returns the ms until the next one is due (-1: there is none), 1 if the queue is paused, 1 if something is being
-- moved, the levels whose streams are there, the ids of tasks that are due, and the members of rooms.
--@include now
local paused, moving, levels = redis.call('EXISTS', KEYS[3]), redis.call('EXISTS', KEYS[4]), {}
for i = 5, #KEYS do
  if redis.call('EXISTS', KEYS[i]) == 1 then levels[#levels + 1] = i - 5 end
end
local soonest, found = -1, {}
for i = 1, 2 do
  found[i] = redis.call('ZRANGEBYSCORE', KEYS[i], '-inf', now, 'LIMIT', 0, ARGV[1])
  local next_one = redis.call('ZRANGEBYSCORE', KEYS[i], '(' .. now, '+inf', 'WITHSCORES', 'LIMIT', 0, 1)[2]
  if next_one and (soonest < 0 or next_one - now < soonest) then soonest = next_one - now end
end
return { soonest, paused, moving, levels, found[1], found[2] }
