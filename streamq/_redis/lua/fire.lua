#!lua
-- Enqueues the messages of instants of a schedule, if the schedule is still due as its caller has seen it, and sets
-- when it is due next. So each instant is fired once, whoever tries. They are put as enqueue_all puts them: all or
-- none, and on the terms of their task.
-- KEYS: as enqueue_all has them, then of the timetable: next instants, definitions, instants fired
-- ARGV: as enqueue_all has them, then name, definition, the instant at which it is due, the next one, the last one
--       that is fired (or nothing)
-- Returns 0 if another has fired it, or it was paused, changed or removed; else what enqueue_all returns.
local ours = #KEYS - 2
local upcoming, definitions, fired = KEYS[ours], KEYS[ours + 1], KEYS[ours + 2]
local name, definition, due, after, last = unpack(ARGV, #ARGV - 4)
if tonumber(redis.call('ZSCORE', upcoming, name) or -1) ~= tonumber(due) then return 0 end
if redis.call('HGET', definitions, name) ~= definition then return 0 end
redis.call('HGET', fired, name) -- fails here, and not after the messages are there, if it is no hash
for at = #KEYS, ours, -1 do
  KEYS[at] = nil
end
for at = #ARGV, #ARGV - 4, -1 do
  ARGV[at] = nil
end
local function enqueue_all()
--@script enqueue_all
end
local reply = enqueue_all()
if reply.err or #reply[3] > 0 then return reply end
if last ~= '' then redis.call('HSET', fired, name, last) end
redis.call('ZADD', upcoming, after, name)
return reply
