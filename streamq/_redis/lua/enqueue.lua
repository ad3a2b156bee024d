#!lua
-- Puts new messages of one level on a queue. An id that has a record is left as it is, so sending again is safe.
-- KEYS: stream of the level, delayed set, then a record for each message
-- ARGV: group, event channels, queue, then for each message: id, task, args, delay in ms (see put), options
-- Returns 1 if the queue is new, else 0; if some messages were there already, a list of that and their positions.
--@include now
--@include events
--@include level
--@include put
--@include open
local stream, delayed = KEYS[1], KEYS[2]
local group, channels, queue = ARGV[1], ARGV[2], ARGV[3]
local reply = { open(stream, group) and 1 or 0 }
for i = 3, #KEYS do
  local record, at = KEYS[i], 5 * i - 11
  local id, task, args, delay, options = ARGV[at], ARGV[at + 1], ARGV[at + 2], tonumber(ARGV[at + 3]), ARGV[at + 4]
  if not put(stream, delayed, record, channels, queue, id, task, args, delay, options) then
    reply[#reply + 1] = i - 3
  end
end
return #reply > 1 and reply or reply[1] -- a list costs the server several microseconds more
