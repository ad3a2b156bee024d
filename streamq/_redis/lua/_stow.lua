-- Puts what an entry holds into the record of its task, under a raised fence; returns the task's name.
local own = { id = true, task = true, args = true, fence = true, at = true, attempt = true, since = true }
local function stow(record, state, entry, fence, attempt, fields)
  local known, more, enqueued = {}, {}, string.match(entry, '^%d+')
  for f = 1, #fields, 2 do
    known[fields[f]] = fields[f + 1]
    if not own[fields[f]] then more[#more + 1], more[#more + 2] = fields[f], fields[f + 1] end
  end
  attempt = attempt or known.attempt or '1'
  if tonumber(attempt) > 1 then
    more[#more + 1], more[#more + 2], more[#more + 3], more[#more + 4] =
      'attempt', attempt, 'since', known.since or enqueued
  end
  redis.call('HSET', record, 'state', state, 'at', known.at or enqueued, 'fence', tonumber(fence) + 1)
  for _, name in ipairs({ 'task', 'args' }) do -- a newer version's message may lack them
    if known[name] then redis.call('HSET', record, name, known[name]) end
  end
  if #more > 0 then redis.call('HSET', record, 'more', cjson.encode(more)) end
  redis.call('HDEL', record, 'entry', 'stream')
  return known.task or ''
end
