-- Who is there. Needs: now, the keys of `Keys.presence` as `seen`, `info` and `told`, and as `channel` the name of the
-- channel on which changes are told.
local hour = 3600000 -- for which what is kept outlives the last who was there

-- Publishes a change as a message of the channel, with numbers that a listener can find holes by.
local function tell(kind, who)
  local session = redis.call('HGET', told, 'session')
  if not session then
    session = 'presence-' .. string.format('%.0f', now)
    redis.call('HSET', told, 'session', session)
  end
  local number = redis.call('HINCRBY', told, 'n', 1)
  redis.call('PEXPIRE', told, hour)
  local form = '{"id":"%s-%d","sender":"presence","type":"%s","channel":"%s","time_ms":%.0f,"session":"%s",'
    .. '"sequence":%d,"payload":'
  local name = string.match(channel, ':channel:(.+)$')
  local message = string.format(form, session, number, kind, name, now, session, number) .. who .. '}'
  redis.pcall('PUBLISH', channel, message)
end

-- Removes one, and tells it if it was there.
local function remove_member(member)
  local who = redis.call('HGET', info, member)
  redis.call('HDEL', info, member)
  if redis.call('ZREM', seen, member) == 1 and who then tell('left', who) end
end

-- Removes those whose time is over, some at a time.
local function remove_overdue()
  for _, member in ipairs(redis.call('ZRANGEBYSCORE', seen, '-inf', now, 'LIMIT', 0, 100)) do
    remove_member(member)
  end
end
