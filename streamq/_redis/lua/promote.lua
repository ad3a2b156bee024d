#!lua flags=allow-oom
-- Moves delayed tasks whose time has come to the ready stream.
-- KEYS: ready stream, delayed set, then a record for each task
-- ARGV: group, event channels, queue, then the id of each task
-- Returns how many were moved.
--@include events
local stream, delayed = KEYS[1], KEYS[2]
local channels, queue = ARGV[2], ARGV[3]
if redis.call('EXISTS', stream) == 0 then
  redis.call('XGROUP', 'CREATE', stream, ARGV[1], '0', 'MKSTREAM')
end
local moved = 0
for i = 3, #KEYS do
  local record, id = KEYS[i], ARGV[i + 1]
  local due = redis.call('ZSCORE', delayed, id)
  if due and tonumber(due) <= now then
    local state, task, args, fence, at, more =
      unpack(redis.call('HMGET', record, 'state', 'task', 'args', 'fence', 'at', 'more'))
    if state == 'delayed' then
      local fields = more and cjson.decode(more) or {}
      for name, value in pairs({ args = args, task = task }) do
        if value then fields[#fields + 1], fields[#fields + 2] = name, value end
      end
      -- What can fail comes first: a script that fails is not rolled back.
      local entry = redis.call('XADD', stream, '*', 'id', id, 'fence', fence or '0', 'at', at or now, unpack(fields))
      redis.call('HSET', record, 'state', 'queued', 'entry', entry)
      redis.call('HDEL', record, 'args', 'at', 'more', 'stream')
      moved = moved + 1
      if listening then tell(channels, queue, task or '', id, 'queued') end
    end
    redis.call('ZREM', delayed, id)
  end
end
return moved
