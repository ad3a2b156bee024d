-- Reads what is written of places, and frees those of tasks that have no right to them any more.
local function known(record, ...)
  local found = redis.pcall('HMGET', record, ...)
  return found.err and {} or found -- something written by hand is no task
end

local function read_rule(rule, member)
  local said = redis.call('HMGET', rule, 'pace', 'burst', 'concurrency', 'keeps')
  local pace, burst, concurrency = tonumber(said[1] or 0), tonumber(said[2] or 1), tonumber(said[3] or 0)
  return { member = member, pace = pace, burst = burst, concurrency = concurrency, keeps = said[4] }
end

local function free_place(places, record, id)
  local place = redis.call('HGET', places, id)
  if not place then return end
  local state, fence, ended = unpack(known(record, 'state', 'fence', 'ended'))
  local has_it = state == 'queued' and (fence or '0') == string.match(place, '^%d+')
  if place == '*' then has_it = state and not ended end
  if not has_it then redis.call('HDEL', places, id) end
end
