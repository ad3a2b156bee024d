-- Makes a stream and its group if the stream is not there; tells whether it was not.
local function open(stream, group)
  if redis.call('EXISTS', stream) == 1 then return false end
  redis.call('XGROUP', 'CREATE', stream, group, '0', 'MKSTREAM')
  return true
end
