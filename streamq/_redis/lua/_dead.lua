-- Writes a dead letter: why it is one, then all that its entry held.
local function write_dead(dead, reason, worker, entry, failure, fields)
  if #fields > 1000 then fields = { 'fields', cjson.encode(fields) } end -- unpack has its limits
  redis.call('XADD', dead, '*', 'reason', reason, 'worker', worker, 'entry', entry, 'error', failure, unpack(fields))
end
