#!lua flags=no-writes
-- Looks for delayed tasks, and for rooms where tasks wait for their turn, whose time has come, by the server's clock.
-- KEYS: delayed set, rooms
-- ARGV: how many at most of each
-- Returns the ms until the next one is due (-1: there is none), the ids of tasks that are, and the members of rooms.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local reply = { -1 }
for i = 1, 2 do
  reply[i + 1] = redis.call('ZRANGEBYSCORE', KEYS[i], '-inf', now, 'LIMIT', 0, ARGV[1])
  local next_one = redis.call('ZRANGEBYSCORE', KEYS[i], '(' .. now, '+inf', 'WITHSCORES', 'LIMIT', 0, 1)[2]
  if next_one and (reply[1] < 0 or next_one - now < reply[1]) then reply[1] = next_one - now end
end
return reply
