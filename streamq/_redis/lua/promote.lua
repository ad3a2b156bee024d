#!lua flags=allow-oom
-- Moves delayed tasks whose time has come to the streams of their levels.
-- KEYS: delayed set, the streams of the levels from 0, then a record for each task
-- ARGV: group, event channels, queue, then the id of each task
-- Returns how many were moved.
--@include events
--@include level
local delayed, group, channels, queue = KEYS[1], ARGV[1], ARGV[2], ARGV[3]
local moved = 0
for i = 12, #KEYS do
  local record, id = KEYS[i], ARGV[i - 8]
  local due = redis.call('ZSCORE', delayed, id)
  if due and tonumber(due) <= now then
    local state, task, args, fence, at, more =
      unpack(redis.call('HMGET', record, 'state', 'task', 'args', 'fence', 'at', 'more'))
    if state == 'delayed' then
      local fields = more and cjson.decode(more) or {}
      local options
      for f = 1, #fields, 2 do
        if fields[f] == 'options' then options = fields[f + 1] end
      end
      local level = level_of(options)
      local stream = KEYS[2 + level]
      if redis.call('EXISTS', stream) == 0 then redis.call('XGROUP', 'CREATE', stream, group, '0', 'MKSTREAM') end
      for name, value in pairs({ args = args, task = task }) do
        if value then fields[#fields + 1], fields[#fields + 2] = name, value end
      end
      -- What can fail comes first: a script that fails is not rolled back.
      local entry = redis.call('XADD', stream, '*', 'id', id, 'fence', fence or '0', 'at', at or now, unpack(fields))
      redis.call('HSET', record, 'state', 'queued', 'entry', entry)
      redis.call('HDEL', record, 'args', 'at', 'more', 'stream')
      if level ~= '5' then redis.call('HSET', record, 'stream', level) end
      moved = moved + 1
      if listening then tell(channels, queue, task or '', id, 'queued') end
    end
    redis.call('ZREM', delayed, id)
  end
end
return moved
