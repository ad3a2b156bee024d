-- When a message is due that comes with a delay: not even a part of a ms too early, for now is the ms that has begun.
local function due_after(delay)
  return time[1] * 1000 + math.ceil(time[2] / 1000) + delay
end

-- Gives the moment at which a message is due that comes with a delay; nothing if that is now.
-- A delay below 0 is a moment: the negative of the Redis time, ms, at which the message is due.
local function due_later(delay)
  local due = delay < 0 and -delay or delay > 0 and due_after(delay) or 0
  return due > now and due or nil
end

-- Notes when a task is due. Workers sleep until the first one is; should they not hear of it, they look every second.
local function put_off(delayed, id, due)
  redis.call('ZADD', delayed, due, id)
  local before = string.format('(%.0f', due)
  if not redis.call('ZRANGEBYSCORE', delayed, '-inf', before, 'LIMIT', 0, 1)[1] then
    redis.pcall('PUBLISH', delayed, due - now)
  end
end

-- Puts one new message on its queue, now or when its time comes; false if its id has a record already.
local function put(stream, delayed, record, channels, queue, id, task, args, delay, options)
  if redis.call('HEXISTS', record, 'state') == 1 then
    local state = redis.call('HGET', record, 'state')
    redis.call('HSET', record, 'state', state) -- a write, for WAIT to wait for: the first may not have arrived
    return false
  end
  local due = due_later(delay)
  if due then
    put_off(delayed, id, due)
    redis.call('HSET', record, 'state', 'delayed', 'task', task, 'args', args, 'at', now)
    if options ~= '' then redis.call('HSET', record, 'more', cjson.encode({ 'options', options })) end
    if listening then tell(channels, queue, task, id, 'delayed', { due = due }) end
  else
    local entry
    if options == '' then
      entry = redis.call('XADD', stream, '*', 'id', id, 'task', task, 'args', args)
    else
      entry = redis.call('XADD', stream, '*', 'id', id, 'task', task, 'args', args, 'options', options)
    end
    redis.call('HSET', record, 'state', 'queued', 'task', task, 'entry', entry)
    if options ~= '' and level_of(options) ~= '5' then redis.call('HSET', record, 'stream', level_of(options)) end
    if listening then tell(channels, queue, task, id, 'queued') end
  end
  return true
end
