-- Makes an entry of the message that waits in a task's record; returns the task's name.
local function unstow(stream, record, id)
  local task, args, fence, at, more = unpack(redis.call('HMGET', record, 'task', 'args', 'fence', 'at', 'more'))
  local fields = more and cjson.decode(more) or {}
  for name, value in pairs({ args = args, task = task }) do
    if value then fields[#fields + 1], fields[#fields + 2] = name, value end
  end
  -- What can fail comes first: a script that fails is not rolled back.
  local entry = redis.call('XADD', stream, '*', 'id', id, 'fence', fence or '0', 'at', at or now, unpack(fields))
  redis.call('HSET', record, 'state', 'queued', 'entry', entry)
  redis.call('HDEL', record, 'args', 'at', 'more', 'stream')
  return task or ''
end
