#!lua
-- Puts new messages on their queues, all or none: looks first whether anything could fail. An id that has a record is
-- left as it is, so sending again is safe. Of all scripts the only one whose keys may be of several queues.
-- KEYS: for each message: ready stream, delayed set, record
-- ARGV: group, then for each message: event channels, queue, id, task, args, delay in ms (see put), options
-- Returns the positions of the messages whose queues are new, or whose ids have records already: the reply that said
-- that the queue is new may have got lost.
--@include events
--@include put
if #KEYS == 0 then return {} end
-- The server has checked that all keys may be used, but neither commands nor channels.
local function find_forbidden()
  for _, command in ipairs({ 'EXISTS', 'HEXISTS', 'HSET', 'TYPE', 'XADD', 'ZADD', 'ZRANGEBYSCORE' }) do
    if not redis.acl_check_cmd(command, KEYS[1], '*', 'a', 'b') then return command end
  end
  if not redis.acl_check_cmd('XGROUP', 'CREATE', KEYS[1], ARGV[1], '0', 'MKSTREAM') then return 'XGROUP' end
  for at = 2, listening and #ARGV or 0, 7 do
    local channel = ARGV[at] .. ARGV[at + 3] .. ':' .. (tonumber(ARGV[at + 5]) ~= 0 and 'delayed' or 'queued')
    if not redis.acl_check_cmd('PUBLISH', channel, '') then return 'PUBLISH to ' .. channel end
  end
end
local forbidden = find_forbidden()
if forbidden then return redis.error_reply('NOPERM this user has no permissions for ' .. forbidden) end
local needed = { 'hash', 'stream', 'zset' } -- of the third, first and second key of a message
for i = 1, #KEYS do
  local kind, need = redis.call('TYPE', KEYS[i]).ok, needed[i % 3 + 1]
  if kind ~= need and kind ~= 'none' then
    return redis.error_reply('WRONGTYPE ' .. KEYS[i] .. ' is a ' .. kind .. ' and no ' .. need)
  end
end
local noted = {}
for i = 1, #KEYS, 3 do
  local stream, delayed, record, at = KEYS[i], KEYS[i + 1], KEYS[i + 2], (7 * i - 1) / 3
  local channels, queue, id, task, args, delay, options = unpack(ARGV, at, at + 6)
  if redis.call('EXISTS', stream) == 0 then
    redis.call('XGROUP', 'CREATE', stream, ARGV[1], '0', 'MKSTREAM')
    noted[#noted + 1] = (i - 1) / 3
  end
  if not put(stream, delayed, record, channels, queue, id, task, args, tonumber(delay), options) then
    noted[#noted + 1] = (i - 1) / 3
  end
end
return noted
