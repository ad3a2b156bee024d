-- Events are made only while somebody listens. Listeners subscribe by pattern (streamq/events.py): the number of
-- patterns is known to the server, so it is right also after a listener was killed.
local listening = redis.call('PUBSUB', 'NUMPAT') > 0
local function tell(channels, queue, task, id, event, more)
  local said = more or {}
  said.event, said.queue, said.task, said.id, said.time = 'task.' .. event, queue, task, id, now
  redis.call('PUBLISH', channels .. task .. ':' .. event, cjson.encode(said))
end
