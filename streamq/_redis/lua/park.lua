#!lua flags=allow-oom
-- Puts deliveries back for later: their messages wait in the delayed set, under a raised fence. So a retry is neither
-- a sleep in a worker nor a second message, and is written in the step that ends the attempt before it.
-- KEYS: stream, delayed set, then a record for each delivery
-- ARGV: group, event channels, queue, worker,
--       then for each delivery: entry, fence, id, ms to wait, reason, attempt it will be, error (empty: it is no retry)
-- Returns the positions of the deliveries that are another's by now.
--@include events
local stream, delayed = KEYS[1], KEYS[2]
local group, channels, queue, worker = unpack(ARGV, 1, 4)
local own = { id = true, task = true, args = true, fence = true, at = true, attempt = true, since = true }
local refused = {}

local function hold(record, entry, fence, id, due, attempt, failure, fields)
  local known, more, enqueued = {}, {}, string.match(entry, '^%d+')
  for f = 1, #fields, 2 do
    known[fields[f]] = fields[f + 1]
    if not own[fields[f]] then more[#more + 1], more[#more + 2] = fields[f], fields[f + 1] end
  end
  if tonumber(attempt) > 1 then
    more[#more + 1], more[#more + 2], more[#more + 3], more[#more + 4] =
      'attempt', attempt, 'since', known.since or enqueued
  end
  -- What can fail comes first: a script that fails is not rolled back.
  redis.call('ZADD', delayed, due, id)
  redis.call('HSET', record, 'state', 'delayed', 'at', known.at or enqueued, 'fence', tonumber(fence) + 1)
  for _, name in ipairs({ 'task', 'args' }) do -- a newer version's message may lack them
    if known[name] then redis.call('HSET', record, name, known[name]) end
  end
  if #more > 0 then redis.call('HSET', record, 'more', cjson.encode(more)) end
  if failure ~= '' then redis.call('HSET', record, 'attempt', attempt, 'failure', failure) end
  redis.call('HDEL', record, 'entry', 'stream')
  return known.task or ''
end

for i = 3, #KEYS do
  local record, at = KEYS[i], 7 * i - 16
  local entry, fence, id, wait, reason, attempt, failure = unpack(ARGV, at, at + 6)
  local was, current = unpack(redis.call('HMGET', record, 'state', 'fence'))
  local found = redis.call('XRANGE', stream, entry, entry)[1]
  if not found or (was and (current or '0') ~= fence) then
    refused[#refused + 1] = i - 3
  else
    local due = now + wait
    local task = hold(record, entry, fence, id, due, attempt, failure, found[2])
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
