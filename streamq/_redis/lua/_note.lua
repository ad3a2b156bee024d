-- Notes a client in a field of a record, whose value is given, once.
local function note(record, field, noted, client)
  if not string.find(' ' .. (noted or '') .. ' ', ' ' .. client .. ' ', 1, true) then
    redis.call('HSET', record, field, noted and noted .. ' ' .. client or client)
  end
end
