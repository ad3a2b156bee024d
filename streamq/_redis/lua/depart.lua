#!lua
-- Takes messages that no worker has off their stream, to be put on another queue: each goes into its record, with the
-- name of that queue, and into the set of what is being moved, so that whoever finds it there can go on. May be refused
-- when memory is full: what is taken has to be put down again.
-- KEYS: stream, set of what is being moved, then a record for each message
-- ARGV: group, name of the other queue, then for each message: entry, id, ms when it was first enqueued, with
--       a fraction that keeps the order
-- Returns how many were taken.
--@include stow
local stream, moving, group, target = KEYS[1], KEYS[2], ARGV[1], ARGV[2]
local taken = 0
for i = 3, #KEYS do
  local record, entry, id, due = KEYS[i], unpack(ARGV, 3 * i - 6, 3 * i - 4)
  local state, its_entry, fence = unpack(redis.call('HMGET', record, 'state', 'entry', 'fence'))
  local found = redis.call('XRANGE', stream, entry, entry)[1]
  if found and state == 'queued' and its_entry == entry and
    not redis.call('XPENDING', stream, group, entry, entry, 1)[1] then
    -- What can fail comes first: a script that fails is not rolled back.
    redis.call('ZADD', moving, due, id)
    stow(record, 'delayed', entry, fence or '0', nil, found[2])
    redis.call('HSET', record, 'moving_to', target)
    redis.call('XDEL', stream, entry)
    taken = taken + 1
  end
end
return taken
