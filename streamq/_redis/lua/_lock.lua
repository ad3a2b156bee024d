-- Locks of calls that are to be unique. A lock names its holder; whether it still holds is decided by the holder's own
-- record and entry, so that nothing has to release a lock when a task ends, dies, is cancelled, or is deleted by hand.
local lock_commands = { 'HGET', 'HMGET', 'PEXPIRE', 'XPENDING', 'XRANGE', 'ZSCORE' }

-- Tells whether a holder with this entry still holds its lock: it has not vanished and, if need be, has not begun.
local function is_there(stream, group, entry, rule)
  if not redis.call('XRANGE', stream, entry, entry)[1] then return false end
  return rule ~= 'queued' or not redis.pcall('XPENDING', stream, group, entry, entry, 1)[1]
end

local function holds(holder, stream, returned, group, rule)
  local state, entry, place, fence, ended, moved_to =
    unpack(redis.call('HMGET', holder, 'state', 'entry', 'stream', 'fence', 'ended', 'moved_to'))
  if rule == 'delayed' then return state == 'delayed' and not fence end -- with a fence it has been with a worker
  if moved_to then return rule == 'done' end -- what becomes of it at the other queue is not known here
  if not state or ended then return rule == 'done' and state ~= 'cancelled' and state ~= 'expired' end
  if state ~= 'queued' or not entry then return true end -- its message lies in the record
  if place == 'returned' then return is_there(returned, group, entry, rule) end
  return is_there(stream, group, entry, rule)
end

-- Finds the holder of a lock: its id, or nothing; or nothing and what the lock holds, if that is not what the caller
-- has seen: then the keys are not those of the holder, and the caller has to come again with them.
local function find_holder(lock, holder, stream, returned, group, terms)
  local value = redis.call('HGET', lock, 'holder')
  local other = value and string.match(value, '^%d:([!-~]+)$') -- else it was written by hand, and locks nothing
  if not other then return nil end
  if value ~= terms.seen then return nil, value end
  return holds(holder, stream, returned, group, terms.rule) and other or nil
end

-- Writes a lock, also one that was found to be held: a write, for WAIT to wait for.
local function write(lock, delayed, value, id, terms, is_new)
  redis.call('HSET', lock, 'holder', value)
  if not (is_new or terms.renews) then return end
  local due = terms.renews and redis.call('ZSCORE', delayed, id) or now
  redis.call('PEXPIRE', lock, terms.ttl + math.max(0, due - now))
end

-- Gives a task that waits for its time another call's arguments, and a later time. That call is enqueued now, so what
-- goes by the age of a call, as its expiry does, begins anew.
local function replace(delayed, holder, channels, queue, id, task, args, delay, options, terms)
  local at, first = unpack(redis.call('HMGET', holder, 'at', 'first'))
  first = first or at
  local due = math.min(due_after(delay), terms.longest and first + terms.longest or math.huge)
  local more = options ~= '' and cjson.encode({ 'options', options }) or '[]'
  put_off(delayed, id, due)
  redis.call('HSET', holder, 'args', args, 'more', more, 'at', now, 'first', first)
  if listening then tell(channels, queue, task, id, 'delayed', { due = due }) end
end

-- Finds the holders of the locks of messages; of those with one lock the first takes it, and the others find it held.
-- Returns positions and contents of the locks whose holders the caller has to look up.
local function find_holders(messages, group)
  local asked, takers = {}, {}
  for n, message in ipairs(messages) do
    local at, id, terms = message.at, ARGV[message.word + 2], message.lock
    local record = KEYS[at + 2]
    if terms and redis.call('HEXISTS', record, 'state') == 0 then
      at = at + terms.place
      local lock, holder, level, returned = KEYS[at], KEYS[at + 1], KEYS[at + 2], KEYS[at + 3]
      local first, found, seen = takers[lock], find_holder(lock, holder, level, returned, group, terms)
      if first and first.id ~= id then
        message.holder, message.holder_at = first.id, first.at
      elseif seen then
        asked[#asked + 1], asked[#asked + 2] = n - 1, seen
      elseif found then
        message.holder, message.holder_at = found, at + 1
      elseif not first then
        takers[lock] = { id = id, at = message.at + 2 }
      end
    end
  end
  return asked
end
