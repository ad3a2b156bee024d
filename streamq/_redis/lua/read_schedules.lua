#!lua flags=no-writes
-- Reads schedules by their names.
-- KEYS: timetable: next instants, definitions, instants fired, declarations
-- ARGV: names
-- Returns the time, then of each its definition, next instant, last instant fired, and declaration; nothing for each of
-- these that it does not have.
local upcoming, definitions, fired, declared = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local time = redis.call('TIME')
local reply = { time[1] * 1000 + math.floor(time[2] / 1000) }
for _, name in ipairs(ARGV) do
  reply[#reply + 1] = {
    redis.call('HGET', definitions, name) or '',
    redis.call('ZSCORE', upcoming, name) or '',
    redis.call('HGET', fired, name) or '',
    redis.call('HGET', declared, name) or '',
  }
end
return reply
