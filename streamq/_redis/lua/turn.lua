#!lua flags=allow-oom
-- Looks into rooms: frees the places of those that have no right to them any more, and wakes as many as may go now, in
-- order. They go to the stream of returned messages, which is read first. For a rate they pay when they come to begin.
-- KEYS: rooms, returned stream, then for each room: rule, rate, places, room, and the records of tasks
-- ARGV: group, event channels, queue, then for each room: its member of the rooms, the number of tasks that may have
--       places, the number of those that may wait, and the ids of both
-- Returns the ms until one of these rooms is to be looked at again; -1: none.
--@include now
--@include events
--@include look
--@include level
--@include open
--@include unstow
--@include limit
--@include places
local rooms, stream = KEYS[1], KEYS[2]
local group, channels, queue = unpack(ARGV, 1, 3)

local function wake(places, room, record, id, place)
  local task = unstow(record, id, 2, group, 'returned')
  redis.call('HDEL', record, 'waits', 'units')
  redis.call('HSET', places, id, place)
  redis.call('ZREM', room, id)
  if listening then tell(channels, queue, task, id, 'queued') end
end

-- Wakes whom it can; gives the ms to wait if somebody cannot go yet.
local function wake_all(rate, places, room, limit, key, at, number)
  local before = units_woken(places)
  for n = 0, number - 1 do
    local record_at = key + n
    local record, id = KEYS[record_at], ARGV[at + n]
    local state, waits, fence, units = unpack(known(record, 'state', 'waits', 'fence', 'units'))
    local score = redis.call('ZSCORE', room, id)
    units = tonumber(units or 1)
    if state ~= 'held' or waits ~= limit.member then
      redis.call('ZREM', room, id)
    elseif score then
      local wait = refusal(rate, limit, units, redis.call('HLEN', places), before)
      -- Some together, if that costs nothing: no unit is lost until all of the burst is there.
      if wait then return math.max(wait, math.min(50, math.floor(limit.burst * limit.pace / 2))) end
      limit.virtual = score
      before = before + math.min(units, limit.burst)
      wake(places, room, record, id, limit.keeps and '*' or (fence or '0') .. ':' .. units)
    end
  end
end

local soonest, at, key = -1, 4, 3
while at <= #ARGV do
  local member, placed, waiting = ARGV[at], ARGV[at + 1] + 0, ARGV[at + 2] + 0
  local rule, rate, places, room = KEYS[key], KEYS[key + 1], KEYS[key + 2], KEYS[key + 3]
  local limit = read_rule(rule, member)
  key, at = key + 4, at + 3
  for n = 0, placed - 1 do free_place(places, stream, group, KEYS[key + n], ARGV[at + n], limit.shares) end
  local wait = wake_all(rate, places, room, limit, key + placed, at + placed, waiting)
  if redis.call('ZCARD', room) > 0 then
    if limit.shares and limit.virtual then redis.call('HSET', rule, 'virtual', limit.virtual) end
    wait = wait or 0 -- there are more than were looked at
    soonest = soonest < 0 and wait or math.min(soonest, wait)
    redis.call('ZADD', rooms, look_in(wait), member)
  else
    redis.call('DEL', rule)
    if limit.shares then redis.call('DEL', rate) end -- the times of keys, which begin anew
    redis.call('ZADD', rooms, look_in(60000), member)
    if redis.call('HLEN', places) == 0 then redis.call('ZREM', rooms, member) end
  end
  key, at = key + placed + waiting, at + placed + waiting
end
return soonest
