#!lua flags=allow-oom
-- Takes messages from the log of a channel for a group. Makes the group if it is not there, and the log for it.
-- KEYS: log, numbers
-- ARGV: group, consumer, how many at most, where a new group begins, ms for which a new log is kept (0: for ever)
-- Returns how many messages were removed from the log before the group got them, then the messages.
local log, numbers = KEYS[1], KEYS[2]
local group, consumer, count, start, age = unpack(ARGV)
local field = 'g:' .. group
local before = redis.call('HGET', numbers, field) -- what can fail comes first
local function read()
  return redis.pcall('XREADGROUP', 'GROUP', group, consumer, 'COUNT', count, 'STREAMS', log, '>')
end
local found = read()
if found and found.err and string.find(found.err, 'NOGROUP', 1, true) then
  local is_new = redis.call('EXISTS', log) == 0
  redis.call('XGROUP', 'CREATE', log, group, start, 'MKSTREAM')
  if is_new and age ~= '0' then redis.call('PEXPIRE', log, age) end
  before = nil
  found = read()
end
if not found then return { 0, {} } end
if found.err then return found end
local entries = found[1][2]
local function number_of(entry)
  for i = 1, #entry[2], 2 do
    if entry[2][i] == 'n' then return tonumber(entry[2][i + 1]) end
  end
end
local first, last = number_of(entries[1]), number_of(entries[#entries])
if last then
  redis.call('HSET', numbers, field, last)
  local left = redis.call('PTTL', log)
  if left > 0 then redis.call('PEXPIRE', numbers, left) end
end
return { before and first and math.max(0, first - before - 1) or 0, entries }
