#!lua
-- Says what a schedule is; what is said already stands, with its next instant. One that is paused stays so. Of what is
-- declared in code counts what the worker says that was started last, as long as a worker says the same: while old and
-- new workers run side by side, they do not take turns in changing it.
-- KEYS: timetable: next instants, definitions, instants fired, declarations
-- ARGV: name, definition, next instant, the time at which the worker was started whose code declares it (nothing: it
--       was added at run time), ms after which a declaration that no worker repeats counts no more
-- Returns 1 if that is new, 0 if not, -1 if it is declared but was to be added, or the other way round.
--@include now
local upcoming, definitions, declared = KEYS[1], KEYS[2], KEYS[4]
local name, definition, after, since, stale = unpack(ARGV)
local known = redis.call('HGET', definitions, name)
local declaration = redis.call('HGET', declared, name)
local active = redis.call('ZSCORE', upcoming, name)
if known and (declaration == false) ~= (since == '') then return -1 end
if known and declaration then
  local known_since, repeated = string.match(declaration, '^(%d+) (%d+)$')
  local is_newer = tonumber(known_since or 0) > tonumber(since)
  if is_newer and known ~= definition and now - tonumber(repeated) < tonumber(stale) then return 0 end
  if is_newer and known == definition then since = known_since end
end
if since ~= '' then redis.call('HSET', declared, name, since .. ' ' .. now) end
if known == definition then return 0 end
redis.call('HSET', definitions, name, definition)
if active or not known then redis.call('ZADD', upcoming, after, name) end
return 1
