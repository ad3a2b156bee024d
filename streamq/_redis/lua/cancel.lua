#!lua flags=allow-oom
-- Ends tasks as cancelled, wherever their messages are: in the delayed set, in their records while they wait for their
-- turn, in a stream, or with a worker, whose outcome will be refused because the fence is raised.
-- KEYS: delayed set, outbox, then for each task: its record, and the stream where its message is, if it is in one
-- ARGV: group, event channels, queue, done channels, channel of signals, ms to keep records, error,
--       'running' to cancel also what workers have or 'waiting' to leave them that,
--       then for each task: id, what its record calls the stream
-- Returns for each task: 1 if it is cancelled, now or before; 0 if not, because it has ended, is not known, or is left
-- to a worker; or what its record calls the stream, if that is not the stream that was given.
--@include now
--@include events
--@include settle
--@include leave
local delayed, outbox = KEYS[1], KEYS[2]
local group, channels, queue, done, signals, ttl, failure, which = unpack(ARGV, 1, 8)
local reply = {}

local function remove(stream, entry, id, is_held)
  if not entry then
    redis.call('ZREM', delayed, id)
    return
  end
  redis.call('XACK', stream, group, entry)
  redis.call('XDEL', stream, entry)
  -- Only a hint: without it the worker finds out when it renews the lease.
  if is_held then redis.pcall('PUBLISH', signals, stream .. ' ' .. entry) end
end

for i = 3, #KEYS, 2 do
  local record, stream = KEYS[i], KEYS[i + 1]
  local id, name = ARGV[i + 6], ARGV[i + 7]
  local state, ended, fence, called, entry, task, waiters, forget =
    unpack(redis.call('HMGET', record, 'state', 'ended', 'fence', 'stream', 'entry', 'task', 'waiters', 'forget'))
  local is_elsewhere = redis.call('HEXISTS', record, 'moved_to') == 1
  entry = state == 'queued' and entry
  local is_flow = redis.call('HEXISTS', record, 'left') == 1
  if is_flow or is_of_flow(record) then forget = nil end
  local is_there = entry and (called or '') == name -- another stream may have an entry of the same id
  local is_held = is_there and redis.pcall('XPENDING', stream, group, entry, entry, 1)[1]
  local done_by_us = 1
  if not state or ended or is_elsewhere or (is_held and which ~= 'running') then
    done_by_us = state == 'cancelled' and 1 or 0
  elseif entry and not is_there then
    done_by_us = called or ''
  else
    -- What can fail comes first: a script that fails is not rolled back.
    redis.call('HSET', record, 'fence', (fence or 0) + 1)
    redis.call('HDEL', record, 'args', 'at', 'more')
    settle(record, 'cancelled', failure, waiters, forget, done, id, ttl)
    leave(outbox, record, id)
    if is_flow then redis.call('ZADD', outbox, now, 'flow:' .. id) end -- its tasks are to be cancelled too
    remove(stream, entry, id, is_held)
    if listening then tell(channels, queue, task or '', id, 'cancelled') end
  end
  reply[#reply + 1] = done_by_us
end
return reply
