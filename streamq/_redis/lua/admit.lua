#!lua flags=allow-oom
-- Lets deliveries begin if all limits that apply to them have room. Of the others each waits in the room of the first
-- limit that refuses, in the order of enqueueing: it is in no stream and has no place.
-- KEYS: rooms, stream, then for each delivery: its record, and of each of its limits: rule, rate, places, room
-- ARGV: group, event channels, queue, then for each delivery: entry, fence, id, ms of enqueue, number of limits, and
--       for each of them: its member of the rooms, ms for a unit (0: no rate), burst, concurrency (0: any), units
-- Returns for each delivery: -1 if it may begin, -2 if it is another's by now, else ms until its room is looked at.
--@include now
--@include events
--@include look
--@include stow
--@include limit
--@include ask
local rooms, stream = KEYS[1], KEYS[2]
local group, channels, queue = unpack(ARGV, 1, 3)

local function begin(rate, places, room, limit, id, fence)
  if limit.pace > 0 then
    redis.call('SET', rate, string.format('%.4f', limit.paid), 'PX', math.ceil(limit.paid - exact) + 1)
  end
  if limit.concurrency > 0 then
    redis.call('HSET', places, id, fence)
    redis.call('ZADD', rooms, 'NX', look_in(60000), limit.member) -- should all die that have places
  elseif redis.call('HDEL', places, id) == 1 and redis.call('EXISTS', places, room) == 0 then
    redis.call('ZREM', rooms, limit.member)
  end
end

local function hold(record, rule, room, limit, wait, entry, fence, id, enqueued, fields)
  -- What can fail comes first: a script that fails is not rolled back. Entries of one ms are in the order of their ids.
  local ms, order = string.match(entry, '^(%d+)-(%d+)$')
  if ms == enqueued then enqueued = string.format('%.6f', ms + math.min(order, 4095) / 4096) end
  redis.call('ZADD', room, enqueued, id)
  redis.call('ZADD', rooms, 'LT', look_in(wait), limit.member)
  redis.call('HSET', rule, 'pace', limit.pace, 'burst', limit.burst, 'concurrency', limit.concurrency)
  local task = stow(record, 'held', entry, fence, nil, fields)
  redis.call('HSET', record, 'waits', limit.member, 'units', limit.units)
  redis.call('XACK', stream, group, entry)
  redis.call('XDEL', stream, entry)
  if listening then tell(channels, queue, task, id, 'held', { reason = limit.member }) end
end

local replies, at, key = {}, 4, 3
while at <= #ARGV do
  local record, limits = KEYS[key], {}
  local entry, fence, id, enqueued, number = unpack(ARGV, at, at + 4)
  for n = 1, number do limits[n] = read_limit(key + 4 * n - 3, at + 5 * n) end
  local was, current = unpack(redis.call('HMGET', record, 'state', 'fence'))
  local found = redis.call('XRANGE', stream, entry, entry)[1]
  local limit, wait = refused_by(limits, id, fence)
  if not found or (was and (current or '0') ~= fence) then
    replies[#replies + 1] = -2
  else
    replies[#replies + 1] = wait or -1
    for _, one in ipairs(limits) do
      local first = one.key
      local rule, rate, places, room = KEYS[first], KEYS[first + 1], KEYS[first + 2], KEYS[first + 3]
      if one == limit then hold(record, rule, room, one, wait, entry, fence, id, enqueued, found[2]) end
      if not limit then
        begin(rate, places, room, one, id, fence)
      elseif redis.call('HDEL', places, id) == 1 then -- what was kept for it is others' again
        redis.call('ZADD', rooms, 'XX', now, one.member)
      end
    end
  end
  key, at = key + 1 + 4 * number, at + 5 + 5 * number
end
return replies
