-- Reads entries of a stream in their order, only so many as fit into some bytes: one can have a megabyte and more.
local function page(stream, first, last, most, room)
  local found = {}
  while #found < most and room > 0 do
    local entry = redis.call('XRANGE', stream, first, last, 'COUNT', 1)[1]
    if not entry then break end
    found[#found + 1] = entry
    first = '(' .. entry[1]
    for _, word in ipairs(entry[2]) do room = room - #word end
  end
  return found
end
