#!lua flags=allow-oom
-- Reads who has places and who waits in rooms whose time has come. Of all workers one does so: the others find that the
-- time is a second later, by when that one has woken whom it can, or has died.
-- KEYS: rooms, then for each room: places, room
-- ARGV: how many of those that wait, then for each room its member of the rooms
-- Returns for each room the ids of both; nothing for one whose time has not come.
--@include now
local rooms, found = KEYS[1], {}
for i = 2, #ARGV do
  local key = 2 * i - 2
  local places, room = KEYS[key], KEYS[key + 1]
  local due = redis.call('ZSCORE', rooms, ARGV[i])
  if due and tonumber(due) <= now then
    redis.call('ZADD', rooms, now + 1000, ARGV[i])
    found[i - 1] = { redis.call('HKEYS', places), redis.call('ZRANGE', room, 0, ARGV[1] - 1) }
  else
    found[i - 1] = {}
  end
end
return found
