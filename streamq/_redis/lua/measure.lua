#!lua flags=no-writes
-- Measures one queue at one moment.
-- KEYS: delayed set, dead letters, key of a pause, set of what is being moved, returned stream, then the streams of the
--       levels from 0
-- ARGV: group
-- Returns the time in ms, how many are delayed, how many are dead, 1 if the queue is paused, how many are being moved,
-- then for each stream: how many entries it has, how many of them are pending, how many it ever had, and its first
-- entry; nothing of one that is not there.
--@include now
local delayed, dead = redis.call('ZCARD', KEYS[1]), redis.call('XLEN', KEYS[2])
local paused, moving = redis.call('EXISTS', KEYS[3]), redis.call('ZCARD', KEYS[4])
local reply = { now, delayed, dead, paused, moving }
local function named(words)
  local found = {}
  for i = 1, #words, 2 do found[words[i]] = words[i + 1] end
  return found
end
for i = 5, #KEYS do
  reply[#reply + 1] = {}
  if redis.call('EXISTS', KEYS[i]) == 1 then
    local about, pending = named(redis.call('XINFO', 'STREAM', KEYS[i])), 0
    for _, group in ipairs(redis.call('XINFO', 'GROUPS', KEYS[i])) do
      if named(group).name == ARGV[1] then pending = named(group).pending end
    end
    local first = about['first-entry'] and about['first-entry'][1] or ''
    reply[#reply] = { about.length, pending, about['entries-added'], first }
  end
end
return reply
