#!lua flags=no-writes
-- Looks for delayed tasks, and for rooms where tasks wait for their turn, whose time has come, by the server's clock;
-- and at what else of a queue can change.
-- KEYS: delayed set, rooms, key of a pause, set of what is being moved, outbox, the streams of the levels from 0
-- ARGV: how many at most of each
-- Returns the ms until the next one is due (-1: there is none), 1 if the queue is paused, 1 if something is being
-- moved, 1 if there is something in the outbox, the levels whose streams are there, the ids of tasks that are due, and
-- the members of rooms.
--@include now
local there, levels = {}, {} -- a pause, what is being moved, an outbox
for i = 3, 5 do there[i] = redis.call('EXISTS', KEYS[i]) end
for i = 6, #KEYS do
  if redis.call('EXISTS', KEYS[i]) == 1 then levels[#levels + 1] = i - 6 end
end
local soonest, found = -1, {}
for i = 1, 2 do
  found[i] = redis.call('ZRANGEBYSCORE', KEYS[i], '-inf', now, 'LIMIT', 0, ARGV[1])
  local next_one = redis.call('ZRANGEBYSCORE', KEYS[i], '(' .. now, '+inf', 'WITHSCORES', 'LIMIT', 0, 1)[2]
  if next_one and (soonest < 0 or next_one - now < soonest) then soonest = next_one - now end
end
return { soonest, there[3], there[4], there[5], levels, found[1], found[2] }
