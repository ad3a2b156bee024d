-- Tells whether the message of a task is gone for which nothing else will be done: its stream was deleted.
local function has_vanished(state, stream, entry)
  return state == 'queued' and entry and not redis.call('XRANGE', stream, entry, entry)[1]
end
