-- Notes of a task of a flow that it has ended, for its flow to be told; until then its record stays.
local function is_of_flow(record)
  return redis.call('HEXISTS', record, 'flow') == 1
end

local function leave(outbox, record, id)
  if not is_of_flow(record) then return false end
  redis.call('PERSIST', record)
  redis.call('ZADD', outbox, now, 'end:' .. id)
  return true
end
