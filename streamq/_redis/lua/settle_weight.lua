#!lua flags=allow-oom
-- Has a run count as so many units of a rate, in place of those it began with. Saying it again changes nothing.
-- KEYS: rooms, record, rate
-- ARGV: member of the rooms, fence, ms for a unit, units it began with, units that it was
-- Returns 1, or 0 if the run is another's by now, or has ended.
--@include now
local rooms, record, rate = KEYS[1], KEYS[2], KEYS[3]
local member, fence, pace, reserved, units = unpack(ARGV)
local state, current, said = unpack(redis.call('HMGET', record, 'state', 'fence', 'settled:' .. member))
if state ~= 'queued' or (current or '0') ~= fence then return 0 end
local before = said and string.match(said, '^' .. fence .. ':(.+)') or reserved
local exact = time[1] * 1000 + time[2] / 1000
local paid = math.max(tonumber(redis.call('GET', rate) or 0), exact) + (units - before) * pace
redis.call('HSET', record, 'settled:' .. member, fence .. ':' .. units)
if paid > exact then
  redis.call('SET', rate, string.format('%.4f', paid), 'PX', math.ceil(paid - exact) + 1)
else
  redis.call('DEL', rate)
end
redis.call('ZADD', rooms, 'XX', 'LT', now, member)
return 1
