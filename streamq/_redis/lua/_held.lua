-- Writes a new message that has to wait for its turn into its record; `member` of the rooms is what it waits for.
local function write_held(record, member, channels, queue, id, task, args, options)
  redis.call('HSET', record, 'state', 'held', 'task', task, 'args', args, 'at', now, 'waits', member)
  if options ~= '' then redis.call('HSET', record, 'more', cjson.encode({ 'options', options })) end
  if listening then tell(channels, queue, task, id, 'held', { reason = member }) end
end
