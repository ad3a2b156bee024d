-- Puts one new message on its queue, now or when its time comes; false if its id has a record already.
local function put(stream, delayed, record, channels, queue, id, task, args, delay, options)
  if redis.call('HEXISTS', record, 'state') == 1 then
    local state = redis.call('HGET', record, 'state')
    redis.call('HSET', record, 'state', state) -- a write, for WAIT to wait for: the first may not have arrived
    return false
  end
  if delay > 0 then
    redis.call('ZADD', delayed, now + delay, id)
    redis.call('HSET', record, 'state', 'delayed', 'task', task, 'args', args, 'at', now)
    if options ~= '' then redis.call('HSET', record, 'more', cjson.encode({ 'options', options })) end
    if listening then tell(channels, queue, task, id, 'delayed', { due = now + delay }) end
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
