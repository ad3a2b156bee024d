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

-- Notes of a task of a flow where that lives. If it has run before, its record was there only for some time.
local function note_flow(record, options)
  local there = string.match(options, '"flow":{"home":"([^"]*)"')
  if not there then return end
  redis.call('HSET', record, 'flow', there)
  if redis.call('HEXISTS', record, 'ended') == 0 then redis.call('PERSIST', record) end
end

-- What events say of a task's place in its flow.
local function place_in_flow(options, id)
  local said = options ~= '' and string.find(options, '"flow":', 1, true) and cjson.decode(options).flow
  if not said then return {} end
  said.id, said.home, said.next, said.group = string.match(id, '^(.*)%.'), nil, nil, nil
  return { flow = said }
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
    if listening then
      local said = place_in_flow(options, id)
      said.due = due
      tell(channels, queue, task, id, 'delayed', said)
    end
  else
    local entry
    local fence = options ~= '' and redis.call('HGET', record, 'fence') -- a task of a flow that has run before
    if fence then
      local fields = { 'id', id, 'task', task, 'args', args, 'options', options, 'fence', fence }
      entry = redis.call('XADD', stream, '*', unpack(fields))
    elseif options == '' then
      entry = redis.call('XADD', stream, '*', 'id', id, 'task', task, 'args', args)
    else
      entry = redis.call('XADD', stream, '*', 'id', id, 'task', task, 'args', args, 'options', options)
    end
    redis.call('HSET', record, 'state', 'queued', 'task', task, 'entry', entry)
    if options ~= '' and level_of(options) ~= '5' then redis.call('HSET', record, 'stream', level_of(options)) end
    if listening then tell(channels, queue, task, id, 'queued', place_in_flow(options, id)) end
  end
  if options ~= '' then note_flow(record, options) end
  return true
end
