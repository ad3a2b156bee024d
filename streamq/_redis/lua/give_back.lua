#!lua flags=allow-oom
-- Gives pending entries that a consumer owns back to the fleet: each moves to the stream of returned messages under
-- a raised fence, so that whoever still runs it can no longer commit. A new entry, and not a claim, because a worker
-- that waits for messages gets it at once; and because it carries its fence, so that fetching needs no script.
-- KEYS: stream, returned stream, then a record for each entry
-- ARGV: group, event channels, queue, owner, 'died' if the owner died under them or 'unstarted',
--       then for each entry: entry, id
-- Returns how many were given back.
--@include events
local stream, returned = KEYS[1], KEYS[2]
local group, channels, queue, owner, why = unpack(ARGV, 1, 5)
if redis.call('EXISTS', returned) == 0 then
  redis.call('XGROUP', 'CREATE', returned, group, '0', 'MKSTREAM')
end
local given = 0
for i = 3, #KEYS do
  local record, entry, id = KEYS[i], ARGV[2 * i], ARGV[2 * i + 1]
  local pending = redis.call('XPENDING', stream, group, entry, entry, 1)[1]
  if pending and pending[2] == owner then
    local found = redis.call('XRANGE', stream, entry, entry)[1]
    if found and redis.call('HEXISTS', record, 'ended') == 0 then
      -- What can fail comes first: a script that fails is not rolled back.
      local fence = redis.call('HINCRBY', record, 'fence', 1)
      local fields, kept, task, at = found[2], {}, '', string.match(entry, '^%d+')
      for f = 1, #fields, 2 do
        if fields[f] == 'at' then
          at = fields[f + 1]
        elseif fields[f] ~= 'fence' then
          kept[#kept + 1], kept[#kept + 2] = fields[f], fields[f + 1]
          if fields[f] == 'task' then task = fields[f + 1] end
        end
      end
      kept[#kept + 1], kept[#kept + 2], kept[#kept + 3], kept[#kept + 4] = 'fence', fence, 'at', at
      local new_entry = redis.call('XADD', returned, '*', unpack(kept))
      redis.call('HSET', record, 'state', 'queued', 'task', task, 'entry', new_entry, 'stream', 'returned')
      if why == 'died' then
        local deaths = redis.call('HINCRBY', record, 'deaths', 1)
        if listening then tell(channels, queue, task, id, 'reclaimed', { worker = owner, deaths = deaths }) end
      end
      given = given + 1
    end
    redis.call('XACK', stream, group, entry)
    redis.call('XDEL', stream, entry)
  end
end
return given
