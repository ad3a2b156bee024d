-- Events are made only while somebody listens. Who does so is subscribed to the beacon, on which nothing is ever
-- published (streamq/events.py): the server knows how many are, so it is right also after a listener was killed.
local beacon = string.match(KEYS[1], '^[^:]*') .. ':events:listening'
local listening = redis.call('PUBSUB', 'NUMSUB', beacon)[2] > 0
local function tell(channels, queue, task, id, event, more)
  local said = more or {}
  said.event, said.queue, said.task, said.id, said.time = 'task.' .. event, queue, task, id, now
  redis.call('PUBLISH', channels .. task .. ':' .. event, cjson.encode(said))
end
