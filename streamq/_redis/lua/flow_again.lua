#!lua flags=allow-oom
-- Makes room for tasks of flows that have failed to be enqueued again: of their records the raised fence alone stays,
-- so that whoever still runs such a task can do nothing to its new run.
-- KEYS: outbox, then a record for each task
-- ARGV: ms to keep what stays, then the id of each
-- Returns for each: 'free' if there is room; 'flow' if it has become a flow, which goes on where it has failed;
-- 'untold' if its flow has still to be told how it ended; else its state.
local failing, reply = { failed = true, dead = true, cancelled = true, expired = true }, {}
for n = 2, #KEYS do
  local record, id = KEYS[n], ARGV[n]
  local state, fence, left, moved_to = unpack(redis.call('HMGET', record, 'state', 'fence', 'left', 'moved_to'))
  reply[n - 1] = 'free'
  if redis.call('ZSCORE', KEYS[1], 'end:' .. id) then
    reply[n - 1] = 'untold'
  elseif left then
    reply[n - 1] = 'flow'
  elseif state and not failing[state] and not moved_to then
    reply[n - 1] = state
  elseif state then
    redis.call('DEL', record)
    redis.call('HSET', record, 'fence', (fence or 0) + 1)
    redis.call('PEXPIRE', record, ARGV[1])
  end
end
return reply
