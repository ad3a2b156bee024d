-- Keeps an event in a log, which has a bound and goes an hour after its last event. Where that cannot be done, as when
-- something else was written there by hand, the event is lost, and not what it tells of.
local lasting
local function keep(log, text)
  local entry = redis.pcall('XADD', log, 'MAXLEN', '~', 100000, '*', 'e', text)
  if type(entry) == 'string' and lasting ~= log then redis.pcall('PEXPIRE', log, 3600000) end
  lasting = log
end
