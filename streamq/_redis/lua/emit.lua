#!lua
-- Adds to the chunks of a run, if its fence is still the record's: what a worker has lost it can add nothing to. What
-- has come already, by a call whose reply was lost, is left out. May be refused when memory is full.
-- The id of a chunk is the delivery and its index in it, so each later one is larger. The first of another delivery
-- than that of the chunks which are there takes their place.
-- KEYS: record, chunks
-- ARGV: done channels, id, entry, fence, ms to keep the chunks, index of the first chunk, then the chunks
-- Returns 1; 0 if the task is another's by now, or has ended.
local record, chunks = KEYS[1], KEYS[2]
local done, id, entry, fence, ttl, first = unpack(ARGV, 1, 6)
local state, current, its_entry, last, readers =
  unpack(redis.call('HMGET', record, 'state', 'fence', 'entry', 'chunk', 'readers'))
if state ~= 'queued' or (current or '0') ~= fence or (its_entry or entry) ~= entry then return 0 end
local delivery, latest = tonumber(fence) + 1, first + #ARGV - 7
local before, index = string.match(last or '', '^(%d+)%-(%d+)$')
if tonumber(before) ~= delivery then
  redis.call('DEL', chunks)
  index = -1
end
for i = math.max(first, index + 1), latest do
  redis.call('XADD', chunks, string.format('%d-%d', delivery, i), 'chunk', ARGV[i - first + 7])
end
redis.call('PEXPIRE', chunks, ttl)
if latest > tonumber(index) then redis.call('HSET', record, 'chunk', string.format('%d-%d', delivery, latest)) end
for client in string.gmatch(readers or '', '%S+') do
  redis.call('PUBLISH', done .. client, id)
end
return 1
