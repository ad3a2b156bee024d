#!lua flags=allow-oom
-- Ends the departure of messages. Of one that has arrived the record says for some time where it went, for those who
-- know only this queue; one that could not arrive comes back.
-- KEYS: set of what is being moved, delayed set, then a record for each message
-- ARGV: ms to keep such records after the task was due, then for each message: id, 1 if it has arrived
--@include now
local moving, delayed, ttl = KEYS[1], KEYS[2], ARGV[1]
for i = 3, #KEYS do
  local record, id, has_arrived = KEYS[i], ARGV[2 * i - 4], ARGV[2 * i - 3] == '1'
  local due = redis.call('ZSCORE', moving, id)
  local state, target = unpack(redis.call('HMGET', record, 'state', 'moving_to'))
  if state ~= 'delayed' then target = nil end -- it has ended meanwhile
  if due and target and has_arrived then
    redis.call('HSET', record, 'moved_to', target)
    redis.call('HDEL', record, 'moving_to', 'args', 'at', 'more', 'attempt', 'deaths', 'failure', 'forget', 'waiters')
    redis.call('HDEL', record, 'readers', 'chunk', 'progress')
    redis.call('PEXPIRE', record, string.format('%.0f', ttl + math.max(0, due - now)))
  elseif due and target then
    redis.call('ZADD', delayed, due, id)
    redis.call('HDEL', record, 'moving_to')
  end
  redis.call('ZREM', moving, id)
end
