#!lua flags=allow-oom
-- Reads some of the chunks of a task's last delivery, and the task's record as `watch` does. Who reads is woken when
-- there are more; others who wait for the task are not, so they have a field of their own.
-- KEYS: as watch has them, then the chunks
-- ARGV: client, delivery and index of the last chunk that it has (-1: none of that delivery), how many at most, bytes
--       that are enough
-- Returns the record's fields and values, without the result, which may be large; and if there is a record here: the
-- last delivery, the index of its last chunk (-1: it has none), and chunks, each with its fields.
--@include note
--@include page
local record, chunks, client = KEYS[1], KEYS[13], ARGV[1]
local function watch()
--@script watch
end
local fields, known, shown = watch(), {}, {}
for i = 1, #fields, 2 do
  known[fields[i]] = fields[i + 1]
  if fields[i] ~= 'result' then shown[#shown + 1], shown[#shown + 2] = fields[i], fields[i + 1] end
end
if not known.state or known.moved_to then return { shown } end
if not known.ended then note(record, 'readers', known.readers, client) end
-- A cancellation raises the fence, and is no delivery.
local delivery = (known.fence or 0) + (known.state == 'cancelled' and 0 or 1)
local of, index = string.match(known.chunk or '', '^(%d+)%-(%d+)$')
if tonumber(of) ~= delivery then return { shown, delivery, -1, {} } end
local has_some = tonumber(ARGV[2]) == delivery and tonumber(ARGV[3]) >= 0
local after = has_some and '(' .. ARGV[2] .. '-' .. ARGV[3] or '-'
local found = page(chunks, after, '+', tonumber(ARGV[4]), tonumber(ARGV[5]))
return { shown, delivery, tonumber(index), found }
