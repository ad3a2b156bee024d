#!lua flags=allow-oom
-- Puts deliveries back for later: their messages wait in the delayed set, under a raised fence. So a retry is neither
-- a sleep in a worker nor a second message, and is written in the step that ends the attempt before it.
-- KEYS: stream, delayed set, then a record for each delivery
-- ARGV: group, event channels, queue, worker,
--       then for each delivery: entry, fence, id, ms to wait, reason, attempt it will be, error (empty: it is no retry)
-- Returns the positions of the deliveries that are another's by now.
--@include now
--@include events
--@include stow
local stream, delayed = KEYS[1], KEYS[2]
local group, channels, queue, worker = unpack(ARGV, 1, 4)
local refused = {}

for i = 3, #KEYS do
  local record, at = KEYS[i], 7 * i - 16
  local entry, fence, id, wait, reason, attempt, failure = unpack(ARGV, at, at + 6)
  local was, current = unpack(redis.call('HMGET', record, 'state', 'fence'))
  local found = redis.call('XRANGE', stream, entry, entry)[1]
  if not found or (was and (current or '0') ~= fence) then
    refused[#refused + 1] = i - 3
  else
    local due = now + wait
    -- What can fail comes first: a script that fails is not rolled back.
    redis.call('ZADD', delayed, due, id)
    local task = stow(record, 'delayed', entry, fence, attempt, found[2])
    if failure ~= '' then redis.call('HSET', record, 'attempt', attempt, 'failure', failure) end
    redis.call('XACK', stream, group, entry)
    redis.call('XDEL', stream, entry)
    if listening and failure ~= '' then
      local kind = string.match(failure, '^{"type":"([^"]*)"')
      tell(channels, queue, task, id, 'retried', { worker = worker, due = due, attempt = attempt + 0, error = kind })
    elseif listening then
      tell(channels, queue, task, id, 'delayed', { due = due, reason = reason })
    end
  end
end
return refused
