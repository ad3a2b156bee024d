#!lua flags=allow-oom
-- Lets go of tasks of flows whose flows have been told how they ended: their records, and of those that had become
-- flows themselves all there is of them, stay for as long as those of other tasks. One that runs again stays as it is.
-- KEYS: outbox, index of flows, then for each task the keys of the flow that it may be
-- ARGV: ms to keep them, then the id of each
--@include now
local ttl = ARGV[1]
for n = 2, #ARGV do
  local first, id = 7 * n - 11, ARGV[n]
  local record = KEYS[first]
  local left, forget, state, ended = unpack(redis.call('HMGET', record, 'left', 'forget', 'state', 'ended'))
  if ended then redis.call('HSET', record, 'told', 1) end
  if ended and (tonumber(left or 0) <= 0 or state == 'cancelled') then
    for key = first, first + 6 do
      if forget then redis.call('DEL', KEYS[key]) end
      redis.call('PEXPIRE', KEYS[key], ttl)
    end
    redis.call('ZADD', KEYS[2], 'XX', string.format('%.0f', now + ttl), id)
    if forget then redis.call('ZREM', KEYS[2], id) end
  end
  redis.call('ZREM', KEYS[1], 'end:' .. id)
end
