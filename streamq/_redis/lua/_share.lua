-- Fair shares, by start-time fair queueing (Goyal, Vin and Cheng, 1996): each message has a virtual time, which for
-- those of one key goes on by one over its weight, and they go in the order of these times, few at a time.
local share_commands = { 'HGET', 'HLEN', 'XLEN', 'ZCARD' }
local most = 50 -- messages in the stream before others have to wait, and then again so many of these

-- Has a message wait in the room of its queue. True if it has to; false if its id has a record already, or if it is to
-- come later: then it waits for its time, and for nobody's turn.
local function share(rooms, rule, times, room, record, stream, message)
  local channels, queue, id, task, args, delay, options = unpack(ARGV, message.word, message.word + 6)
  local member, key = message.share.member, message.share.key
  if due_later(tonumber(delay)) or redis.call('HEXISTS', record, 'state') == 1 then return false end
  if redis.call('ZCARD', room) == 0 and redis.call('XLEN', stream) < most then return false end
  local current, last = redis.call('HGET', rule, 'virtual'), redis.call('HGET', times, key)
  local starts = math.max(tonumber(current or 0), tonumber(last or 0))
  redis.call('ZADD', room, string.format('%.6f', starts), id)
  redis.call('HSET', rule, 'concurrency', most)
  redis.call('HSET', times, key, string.format('%.6f', starts + 1 / message.share.weight))
  redis.call('ZADD', rooms, 'LT', now, member)
  write_held(record, member, channels, queue, id, task, args, options)
  return true
end
