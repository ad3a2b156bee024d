-- Events are made only if they are kept, or somebody listens. Who does so is subscribed to the beacon, on which nothing
-- is ever published (streamq/events.py): the server knows how many are, so it is right also after one was killed.
-- The last of KEYS is the log, or the first once more if no events are kept. It is taken off, so that a script finds
-- only what is its own.
--@include keep
local log = KEYS[#KEYS] ~= KEYS[1] and KEYS[#KEYS] or nil
KEYS[#KEYS] = nil
local beacon = string.match(KEYS[1], '^[^:]*') .. ':events:listening'
local heard = redis.call('PUBSUB', 'NUMSUB', beacon)[2] > 0
local listening = heard or log ~= nil
local function tell(channels, queue, task, id, event, more)
  local said = more or {}
  said.event, said.queue, said.task, said.id, said.time = 'task.' .. event, queue, task, id, now
  local text = cjson.encode(said)
  if log then keep(log, text) end
  if heard then redis.pcall('PUBLISH', channels .. task .. ':' .. event, text) end -- news may be lost, work may not
end
