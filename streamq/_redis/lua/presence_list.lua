#!lua flags=allow-oom
-- Lists who is there, having removed those who gave no sign of life.
-- KEYS: seen, info, told
-- ARGV: channel
-- Returns pairs: who it is as a JSON object, and until when that holds, in ms of the server's time.
--@include now
local seen, info, told = KEYS[1], KEYS[2], KEYS[3]
local channel = ARGV[1]
--@include presence
remove_overdue()
local found = {}
local members = redis.call('ZRANGEBYSCORE', seen, '(' .. now, '+inf', 'WITHSCORES')
for i = 1, #members, 2 do
  local who = redis.call('HGET', info, members[i])
  if who then
    found[#found + 1] = who
    found[#found + 1] = members[i + 1]
  end
end
return found
