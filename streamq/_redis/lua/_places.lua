-- Reads what is written of places, and frees those of tasks that have no right to them any more.
local function known(record, ...)
  local found = redis.pcall('HMGET', record, ...)
  return found.err and {} or found -- something written by hand is no task
end

local function read_rule(rule, member)
  local said = redis.call('HMGET', rule, 'pace', 'burst', 'concurrency', 'keeps')
  local pace, burst, concurrency = tonumber(said[1] or 0), tonumber(said[2] or 1), tonumber(said[3] or 0)
  -- What the rule of a room says of limits goes with its last task; of whom there are shares is known by its name.
  local shares = member == 'fair'
  return { member = member, pace = pace, burst = burst, concurrency = concurrency, keeps = said[4], shares = shares }
end

local function free_place(places, stream, group, record, id, shares)
  local place = redis.call('HGET', places, id)
  if not place then return end
  local state, fence, ended, entry, waits, moved_to =
    unpack(known(record, 'state', 'fence', 'ended', 'entry', 'waits', 'moved_to'))
  local has_it = state == 'queued' and (fence or '0') == string.match(place, '^%d+')
  if has_it and shares then has_it = #redis.call('XPENDING', stream, group, entry, entry, 1) == 0 end
  -- Who waits in a line is a new task with the id of one that had a place, and would wait for itself.
  local is_in_line = state == 'held' and string.match(waits or '', '^order:')
  if place == '*' then has_it = state and not ended and not moved_to and not is_in_line end
  if not has_it then redis.call('HDEL', places, id) end
end
