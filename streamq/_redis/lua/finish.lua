#!lua flags=allow-oom
-- Commits the outcomes of tasks, each only if its fence is still the record's: a worker that lost a message to
-- another can neither write its outcome nor acknowledge the other's entry.
-- KEYS: stream the messages came from, then a record for each outcome
-- ARGV: group, event channels, queue, done channels, worker, ms to keep records,
--       then for each outcome: entry, fence, state, body, id, task
-- Returns the positions of the outcomes that were refused.
--@include now
--@include events
--@include settle
local stream = KEYS[1]
local group, channels, queue, done, worker, ttl = unpack(ARGV, 1, 6)
local refused, ended = {}, {}
for i = 2, #KEYS do
  local record, at = KEYS[i], 6 * i - 5
  local entry, fence, state, body, id, task = unpack(ARGV, at, at + 5)
  local was, current, its_entry, waiters, forget =
    unpack(redis.call('HMGET', record, 'state', 'fence', 'entry', 'waiters', 'forget'))
  -- The entry is compared too: an id that was forgotten and used anew begins with the same fences.
  if was and ((current or '0') ~= fence or (its_entry or entry) ~= entry) then
    refused[#refused + 1] = i - 2
  else
    -- Without a record (it was deleted by hand) there is nothing to commit to, but the entry must not stay.
    ended[#ended + 1] = entry
    -- An ended record with our fence is our own commit, whose reply was lost.
    if was == 'queued' then
      settle(record, state, body, waiters, forget, done, id, ttl)
      if listening then
        -- The kind of an error is news; its text may hold what is nobody else's business.
        local failure = state == 'failed' and string.match(body, '^{"type":"([^"]*)"') or nil
        tell(channels, queue, task, id, state, { worker = worker, error = failure })
      end
    end
  end
end
if #ended > 0 then
  redis.call('XACK', stream, group, unpack(ended))
  redis.call('XDEL', stream, unpack(ended))
end
return refused
