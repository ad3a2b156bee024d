-- Writes the last state of a task, lets its record expire, and wakes those who wait for it.
local function settle(record, state, body, waiters, forget, done, id, ttl)
  if forget then
    redis.call('DEL', record)
  else
    redis.call('HSET', record, 'state', state, state == 'succeeded' and 'result' or 'error', body, 'ended', now)
    redis.call('PEXPIRE', record, ttl)
  end
  if waiters then
    for client in string.gmatch(waiters, '%S+') do
      redis.call('PUBLISH', done .. client, id)
    end
  end
end
