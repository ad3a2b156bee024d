#!lua
-- Takes delayed messages off their queue, to be put on another, as depart does with those in streams.
-- KEYS: delayed set, set of what is being moved, then a record for each message
-- ARGV: name of the other queue, then the id of each message
-- Returns how many were taken.
local delayed, moving, target = KEYS[1], KEYS[2], ARGV[1]
local taken = 0
for i = 3, #KEYS do
  local record, id = KEYS[i], ARGV[i - 1]
  local due = redis.call('ZSCORE', delayed, id)
  if due and redis.call('HGET', record, 'state') == 'delayed' then
    redis.call('ZADD', moving, due, id)
    redis.call('HINCRBY', record, 'fence', 1)
    redis.call('HSET', record, 'moving_to', target)
    redis.call('ZREM', delayed, id)
    taken = taken + 1
  end
end
return taken
