#!lua
-- Puts messages that have departed from another queue on this one, as they were: into their records and the delayed
-- set, from where they go on their streams when they are due, which most are at once. One that has arrived already is
-- left as it is, so sending again is safe; the fence, which each departure raises, tells it apart.
-- KEYS: delayed set, then a record for each message
-- ARGV: event channels, queue, name of the other queue, then for each message: id, due time, number of words, the words
--       of its record
-- Returns the positions of those whose id is that of another task here.
--@include now
--@include events
local delayed, channels, queue, from = KEYS[1], ARGV[1], ARGV[2], ARGV[3]
local conflicts, at = {}, 4
for i = 2, #KEYS do
  local record, id, due, count = KEYS[i], ARGV[at], ARGV[at + 1], tonumber(ARGV[at + 2])
  local brought = {}
  for w = at + 3, at + 2 + count, 2 do brought[ARGV[w]] = ARGV[w + 1] end
  local state, moved_to, moved_from, fence =
    unpack(redis.call('HMGET', record, 'state', 'moved_to', 'moved_from', 'fence'))
  local is_here = state and moved_from == from and tonumber(fence or 0) >= tonumber(brought.fence or 0)
  if state and not moved_to and not is_here then
    conflicts[#conflicts + 1] = i - 2
  elseif not is_here then
    -- What can fail comes first: a script that fails is not rolled back.
    redis.call('ZADD', delayed, due, id)
    redis.call('DEL', record)
    redis.call('HSET', record, 'moved_from', from, unpack(ARGV, at + 3, at + 2 + count))
    redis.call('HDEL', record, 'moving_to')
    if listening then tell(channels, queue, brought.task or '', id, 'delayed', { due = math.floor(due) }) end
  end
  at = at + 3 + count
end
return conflicts
