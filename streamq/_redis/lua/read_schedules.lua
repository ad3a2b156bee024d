#!lua flags=no-writes
-- Reads schedules by their names.
-- KEYS: timetable: next instants, definitions, instants fired, declarations
-- ARGV: names
-- Returns the time, then of each its definition, next instant, last instant fired, and declaration; nothing for each of
-- these that it does not have.
--@include now
local upcoming, definitions, fired, declared = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local reply = { now }
for _, name in ipairs(ARGV) do
  reply[#reply + 1] = {
    redis.call('HGET', definitions, name) or '',
    redis.call('ZSCORE', upcoming, name) or '',
    redis.call('HGET', fired, name) or '',
    redis.call('HGET', declared, name) or '',
  }
end
return reply
