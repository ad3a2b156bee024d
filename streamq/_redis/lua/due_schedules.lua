#!lua flags=no-writes
-- Looks for schedules that are due, by the server's clock, oldest instant first.
-- KEYS: timetable: next instants, definitions, instants fired, declarations
-- ARGV: how many to pass over, how many at most
-- Returns the time, the ms until the next one is due (-1: there is none), then of each one that is its name, instant,
-- definition and declaration.
--@include now
local upcoming, definitions, declared = KEYS[1], KEYS[2], KEYS[4]
local due = redis.call('ZRANGEBYSCORE', upcoming, '-inf', now, 'WITHSCORES', 'LIMIT', ARGV[1], ARGV[2])
local next_one = redis.call('ZRANGEBYSCORE', upcoming, now + 1, '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
local reply = { now, next_one[2] and next_one[2] - now or -1 }
for i = 1, #due, 2 do
  local name = due[i]
  local definition = redis.call('HGET', definitions, name) or ''
  reply[#reply + 1] = { name, due[i + 1], definition, redis.call('HGET', declared, name) or '' }
end
return reply
