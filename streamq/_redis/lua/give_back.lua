#!lua flags=allow-oom
-- Gives pending entries that a consumer owns back to the fleet: each moves to the stream of returned messages under
-- a raised fence, so that whoever still runs it can no longer commit. A new entry, and not a claim, because a worker
-- that waits for messages gets it at once; and because it carries its fence, so that fetching needs no script.
-- A message under which too many workers have died goes to the dead letters instead.
-- KEYS: stream, returned stream, dead letters, outbox, then a record for each entry
-- ARGV: group, event channels, queue, done channels, ms to keep records, owner, how the owner died (empty: it did not,
--       or had not begun), deaths that are too many, error of a task that had so many, then for each entry: entry, id
-- Returns how many were given back, and how many went to the dead letters.
--@include now
--@include events
--@include settle
--@include dead
--@include leave
--@include open
local stream, returned, dead, outbox = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local group, channels, queue, done, ttl, owner, died, too_many, failure = unpack(ARGV, 1, 9)
local given, buried = 0, 0
open(returned, group)

local function bury(record, entry, id, task, fields, deaths)
  write_dead(dead, 'its worker died ' .. deaths .. ' times: ' .. died, owner, entry, failure, fields)
  local waiters, forget = unpack(redis.call('HMGET', record, 'waiters', 'forget'))
  redis.call('HSET', record, 'deaths', deaths)
  forget = forget and not is_of_flow(record)
  settle(record, 'dead', failure, waiters, forget, done, id, ttl)
  leave(outbox, record, id)
  if listening then tell(channels, queue, task, id, 'dead', { worker = owner, reason = died, deaths = deaths }) end
  buried = buried + 1
end

local function give(record, entry, id, fields)
  local known, kept = { at = string.match(entry, '^%d+') }, {}
  for f = 1, #fields, 2 do
    local name, value = fields[f], fields[f + 1]
    known[name] = value
    if name ~= 'fence' and name ~= 'at' and name ~= 'deaths' then kept[#kept + 1], kept[#kept + 2] = name, value end
  end
  local fence = math.max(redis.call('HGET', record, 'fence') or 0, known.fence or 0) + 1
  local deaths, task = (known.deaths or 0) + (died ~= '' and 1 or 0), known.task or ''
  kept[#kept + 1], kept[#kept + 2], kept[#kept + 3], kept[#kept + 4] = 'fence', fence, 'at', known.at
  if deaths > 0 then kept[#kept + 1], kept[#kept + 2] = 'deaths', deaths end
  if died ~= '' and deaths >= tonumber(too_many) then return bury(record, entry, id, task, kept, deaths) end
  -- What can fail comes first: a script that fails is not rolled back.
  local new_entry = redis.call('XADD', returned, '*', unpack(kept))
  redis.call('HSET', record, 'state', 'queued', 'fence', fence, 'task', task, 'entry', new_entry, 'stream', 'returned')
  given = given + 1
  if died == '' then return end
  redis.call('HSET', record, 'deaths', deaths)
  if listening then tell(channels, queue, task, id, 'reclaimed', { worker = owner, deaths = deaths }) end
end

for i = 5, #KEYS do
  local record, entry, id = KEYS[i], ARGV[2 * i], ARGV[2 * i + 1]
  local pending = redis.call('XPENDING', stream, group, entry, entry, 1)[1]
  if pending and pending[2] == owner then
    local found = redis.call('XRANGE', stream, entry, entry)[1]
    local kind = redis.call('TYPE', record).ok
    if found and kind ~= 'hash' and kind ~= 'none' then -- written by hand; the others must not wait behind it
      write_dead(dead, 'the record of its task is a ' .. kind, owner, entry, failure, found[2])
      buried = buried + 1
    elseif found and redis.call('HEXISTS', record, 'ended') == 0 then
      give(record, entry, id, found[2])
    end
    redis.call('XACK', stream, group, entry)
    redis.call('XDEL', stream, entry)
  end
end
return { given, buried }
