-- Asks the limits of one delivery, each of which has its words in ARGV and its keys in KEYS.
local function read_limit(key, at)
  local limit = { key = key, member = ARGV[at] }
  for n, name in ipairs({ 'pace', 'burst', 'concurrency', 'units' }) do limit[name] = tonumber(ARGV[at + n]) end
  return limit
end

local function refused_by(limits, id, fence)
  for _, limit in ipairs(limits) do
    local key = limit.key
    local rate, places, room = KEYS[key + 1], KEYS[key + 2], KEYS[key + 3]
    local place = redis.call('HGET', places, id)
    local is_woken = place and string.match(place, '^%d+') == fence
    if not is_woken and redis.call('ZCARD', room) > 0 then return limit, 1000 end -- no overtaking
    local taken = redis.call('HLEN', places) - (place and 1 or 0)
    local before = (is_woken or limit.pace == 0) and 0 or units_woken(places)
    local wait = refusal(rate, limit, limit.units, taken, before)
    if wait then return limit, wait end
  end
end
