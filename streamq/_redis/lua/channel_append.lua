#!lua
-- Appends a message to the log of a channel and publishes it, once: sent again, it is known by its session's sequence.
-- KEYS: log, numbers, what the session has sent last
-- ARGV: channel, PUBLISH or SPUBLISH, message as a JSON object, its sequence, most entries (0: any number), ms for
--       which entries are kept (0: for ever)
-- Returns the entry, how many heard of it, and 1 if it is the first of the log.
--@include now
local log, numbers, sent = KEYS[1], KEYS[2], KEYS[3]
local channel, publish, message, sequence, most, age = unpack(ARGV)
local last, entry = string.match(redis.call('GET', sent) or '', '^(%d+) (.+)$')
if last and tonumber(sequence) <= tonumber(last) then -- of several that are sent again, each has an entry of its own
  if sequence == last then return { entry, 0, 0 } end
  for _, one in ipairs(redis.call('XREVRANGE', log, entry, '-', 'COUNT', 1000)) do
    if one[2][2] == message then return { one[1], 0, 0 } end
  end
  return { '', 0, 0 }
end
local number = (redis.call('HGET', numbers, 'n') or 0) + 1
if most == '0' then
  entry = redis.call('XADD', log, '*', 'm', message, 'n', number)
else
  entry = redis.call('XADD', log, 'MAXLEN', '~', most, '*', 'm', message, 'n', number)
end
redis.call('HSET', numbers, 'n', number)
redis.call('SET', sent, sequence .. ' ' .. entry, 'PX', 600000) -- a publisher gives up long before
if age ~= '0' then
  redis.call('XTRIM', log, 'MINID', '~', string.format('%.0f', now - age))
  redis.call('PEXPIRE', log, age)
  redis.call('PEXPIRE', numbers, age)
else -- it may have been kept for a time before
  redis.call('PERSIST', log)
  redis.call('PERSIST', numbers)
end
local told = string.format('%s,"entry":"%s","number":%d}', string.sub(message, 1, -2), entry, number)
local heard = redis.pcall(publish, channel, told) -- those who listen find it in the log as well
return { entry, type(heard) == 'number' and heard or 0, number == 1 and 1 or 0 }
