-- A limit has places, each with who has it: `fence` of one that runs, `fence:units` of one that was woken and has not
-- come yet, or `*` of one that keeps it until its task has ended. Its rate is kept by the generic cell rate algorithm
-- (ITU-T I.371): one number, the time at which all that was let in is paid for.
local exact = time[1] * 1000 + time[2] / 1000

local function units_woken(places)
  local sum = 0
  for _, place in ipairs(redis.call('HVALS', places)) do sum = sum + (string.match(place, ':(.+)') or 0) end
  return sum
end

-- Gives the ms after which to ask again if nothing more can be let in; if it can, notes when that would be paid for.
local function refusal(rate, limit, units, taken, before)
  if limit.concurrency > 0 and taken >= limit.concurrency then return 1000 end
  if limit.pace == 0 then return nil end
  limit.paid = math.max(tonumber(redis.call('GET', rate) or 0), exact) + math.min(units, limit.burst) * limit.pace
  local wait = limit.paid + (before - limit.burst) * limit.pace - exact
  if wait > 0.001 then return math.ceil(wait) end
end
