#!lua
-- Moves dead letters back to the streams of their levels, each as a new entry under a raised fence, so that whoever
-- still runs what has died can no longer commit. May be refused when memory is full, as an enqueue may: it makes work
-- and records and frees nothing by itself, and what is refused stays where it is.
-- KEYS: dead letters, the streams of the levels from 0, then a record for each letter
-- ARGV: group, event channels, queue, 'reset' to begin the counts anew or 'keep',
--       then for each letter: entry, id (another than its own makes a new task of it)
-- Returns how many were moved, and how many stay because their id is that of a task that is not dead.
--@include now
--@include events
--@include level
--@include open
local dead = KEYS[1]
local group, channels, queue, counts = unpack(ARGV, 1, 4)
local moved, conflicts = 0, 0

local function is_free(record)
  local kind = redis.call('TYPE', record).ok
  if kind ~= 'hash' then return kind == 'none' end -- anything else was written by hand
  local state = redis.call('HGET', record, 'state')
  return not state or state == 'dead'
end

local function redrive(record, letter, id, found)
  local known, fields, about = {}, { 'id', id }, { 'state', 'queued' }
  local ours = { id = true, fence = true, at = true, attempt = true, deaths = true, since = true }
  for f = 9, #found, 2 do -- the first four are reason, worker, entry and error
    known[found[f]] = found[f + 1]
    if not ours[found[f]] then fields[#fields + 1], fields[#fields + 2] = found[f], found[f + 1] end
  end
  local level = level_of(known.options)
  local stream = KEYS[2 + level]
  open(stream, group)
  local function add(name, value, to)
    if value then to[#to + 1], to[#to + 2] = name, value end
  end
  local is_same = id == known.id
  local fence = is_same and math.max(tonumber(redis.call('HGET', record, 'fence') or 0), tonumber(known.fence) or 0) + 1
  add('fence', fence, fields)
  add('fence', fence, about)
  if is_same and counts == 'keep' then
    add('at', known.at or string.match(found[6], '^%d+'), fields)
    for _, name in ipairs({ 'attempt', 'deaths', 'since' }) do add(name, known[name], fields) end
    for _, name in ipairs({ 'attempt', 'deaths' }) do add(name, known[name], about) end
  end
  add('task', known.task or '', about)
  -- What can fail comes first: a script that fails is not rolled back.
  add('entry', redis.call('XADD', stream, '*', unpack(fields)), about)
  redis.call('HDEL', record, 'ended', 'error', 'result', 'stream', 'attempt', 'deaths')
  if counts == 'reset' then redis.call('HDEL', record, 'failure') end
  if level ~= '5' then add('stream', level, about) end
  redis.call('HSET', record, unpack(about))
  redis.call('PERSIST', record)
  redis.call('XDEL', dead, letter)
  moved = moved + 1
  if listening then tell(channels, queue, known.task or '', id, 'queued') end
end

for i = 12, #KEYS do
  local record, letter, id = KEYS[i], ARGV[2 * i - 19], ARGV[2 * i - 18]
  local found = redis.call('XRANGE', dead, letter, letter)[1]
  if found and is_free(record) then
    redrive(record, letter, id, found[2])
  elseif found then
    conflicts = conflicts + 1
  end
end
return { moved, conflicts }
