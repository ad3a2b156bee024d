#!lua
-- Puts new messages on their queues, all or none: looks first whether anything could fail. An id that has a record is
-- left as it is, so sending again is safe. Of all scripts the only one whose keys may be of several queues.
-- KEYS: for each message: stream of its level, delayed set, record, then what its terms bring
--       (lock: the lock, and of its holder, as far as it is known: record, level's stream, returned stream;
--       line: rooms, and of its member of them: rule, places, room; share: the same and the times of keys),
--       and if events are kept the log of its queue
-- ARGV: group, then for each message: event channels, queue, id, task, args, delay in ms (see put), options,
--       terms (empty: none; else JSON: the types of the keys that they bring, then each with the place of its first)
-- Returns the positions of the messages whose queues are new; of messages that were not put, position and id, one by
-- one, of the task that is there: their own if it was known (then the reply that said that the queue is new may have
-- got lost), or the holder of their lock; and of messages whose lock may be held, position and what the lock holds:
-- then nothing was put.
if #KEYS == 0 then return { {}, {}, {} } end
--@include now
--@include events
--@include level
--@include put
--@include open
--@include refuse
--@include lock
--@include look
--@include held
--@include line
--@include share
local group, messages, at, locks = ARGV[1], {}, 1, {}
local lines, shares = {}, {}
for word = 2, #ARGV, 8 do
  local terms = ARGV[word + 7] ~= '' and cjson.decode(ARGV[word + 7]) or { brings = {} }
  terms.at, terms.word = at, word
  messages[#messages + 1] = terms
  at = at + 3 + #terms.brings + (log and 1 or 0)
  terms.last = at - 1
  if terms.lock then locks = lock_commands end
  if terms.line then lines = line_commands end
  if terms.share then shares = share_commands end
end
local commands = { 'EXISTS', 'HEXISTS', 'HSET', 'TYPE', 'XADD', 'ZADD', 'ZRANGEBYSCORE' }
local forbidden = find_forbidden(commands, locks, lines, shares)
if forbidden then return redis.error_reply('NOPERM this user has no permissions for ' .. forbidden) end
for _, message in ipairs(messages) do
  local wrong = find_mistyped(message.at, { 'stream', 'zset', 'hash', unpack(message.brings) })
  if wrong then return redis.error_reply('WRONGTYPE ' .. wrong) end
end
local asked = find_holders(messages, group)
if #asked > 0 then return { {}, {}, asked } end

local noted, held = {}, {}
for n, message in ipairs(messages) do
  local at, lock_at, holder_at = message.at, message.at + (message.lock and message.lock.place or 0), message.holder_at
  local stream, delayed, record, lock = KEYS[at], KEYS[at + 1], KEYS[at + 2], KEYS[lock_at]
  local channels, queue, id, task, args, delay, options = unpack(ARGV, message.word, message.word + 6)
  local last = message.last
  log = log and KEYS[last]
  if open(stream, group) then noted[#noted + 1] = n - 1 end
  if (message.line or message.share) and not message.holder then note_flow(record, options) end
  delay = tonumber(delay)
  local line_at = message.at + (message.line and message.line.place or 0)
  local rooms, rule, places, room = KEYS[line_at], KEYS[line_at + 1], KEYS[line_at + 2], KEYS[line_at + 3]
  local share_at = message.at + (message.share and message.share.place or 0)
  local all_rooms = KEYS[share_at]
  local fair, times, crowd = KEYS[share_at + 1], KEYS[share_at + 4], KEYS[share_at + 3]
  if message.holder then
    local holder = KEYS[holder_at]
    if message.lock.rule == 'delayed' then
      replace(delayed, holder, channels, queue, message.holder, task, args, delay, options, message.lock)
    end
    local value = redis.call('HGET', lock, 'holder')
    write(lock, delayed, value, message.holder, message.lock)
    held[#held + 1], held[#held + 2] = n - 1, message.holder
  elseif not (message.line and line_up(rooms, rule, places, room, record, message))
    and not (message.share and share(all_rooms, fair, times, crowd, record, stream, message))
    and not put(stream, delayed, record, channels, queue, id, task, args, delay, options) then
    held[#held + 1], held[#held + 2] = n - 1, id
  elseif message.lock then
    write(lock, delayed, message.lock.value, id, message.lock, true)
  end
end
return { noted, held, asked }
