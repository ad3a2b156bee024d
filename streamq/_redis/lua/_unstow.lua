-- Makes an entry of the message that waits in a task's record; returns the task's name.
-- `place` is the stream, as records name it; by default that of the message's level. The streams of the levels from 0
-- are in KEYS from `first` on, or at `first` the one stream that is meant.
local function unstow(record, id, first, group, place)
  local task, args, fence, at, more = unpack(redis.call('HMGET', record, 'task', 'args', 'fence', 'at', 'more'))
  local fields, options = more and cjson.decode(more) or {}, nil
  for f = 1, #fields, 2 do
    if fields[f] == 'options' then options = fields[f + 1] end
  end
  for name, value in pairs({ args = args, task = task }) do
    if value then fields[#fields + 1], fields[#fields + 2] = name, value end
  end
  place = place or level_of(options)
  local stream = KEYS[first + (tonumber(place) or 0)]
  -- What can fail comes first: a script that fails is not rolled back.
  open(stream, group)
  local entry = redis.call('XADD', stream, '*', 'id', id, 'fence', fence or '0', 'at', at or now, unpack(fields))
  redis.call('HSET', record, 'state', 'queued', 'entry', entry)
  redis.call('HDEL', record, 'args', 'at', 'more', 'first', 'stream')
  if place ~= '5' then redis.call('HSET', record, 'stream', place) end
  return task or ''
end
