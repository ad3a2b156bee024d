-- Lines: of messages with the same ordering key only the first is in a stream, or later in the delayed set. It has
-- the one place that there is until its task has ended; the others wait in the room, in the order of their enqueueing.
local line_commands = { 'HLEN', 'ZCARD', 'ZRANGE' }

-- Takes the place if it is free; else has the message wait. True if it has to; false if its id has a record already.
local function line_up(rooms, rule, places, room, record, message)
  local channels, queue, id, task, args, _, options = unpack(ARGV, message.word, message.word + 6)
  local member = message.line.member
  if redis.call('HEXISTS', record, 'state') == 1 then return false end
  if redis.call('HLEN', places) == 0 and redis.call('ZCARD', room) == 0 then
    redis.call('HSET', places, id, '*')
    redis.call('ZADD', rooms, 'NX', look_in(60000), member)
    return false
  end
  local last = redis.call('ZRANGE', room, -1, -1, 'WITHSCORES')[2]
  redis.call('ZADD', room, (last or 0) + 1, id)
  redis.call('HSET', rule, 'concurrency', 1, 'keeps', 1)
  redis.call('ZADD', rooms, 'LT', look_in(1000), member)
  write_held(record, member, channels, queue, id, task, args, options)
  return true
end
