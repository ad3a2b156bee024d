#!lua flags=allow-oom
-- Starts the lease of entries anew, of those only that their owner still has.
-- KEYS: stream
-- ARGV: group, owner, then the entries
-- Returns the entries that are no longer the owner's.
local stream, group, owner = KEYS[1], ARGV[1], ARGV[2]
local mine, lost = {}, {}
for i = 3, #ARGV do
  local pending = redis.call('XPENDING', stream, group, ARGV[i], ARGV[i], 1)[1]
  if pending and pending[2] == owner then
    mine[#mine + 1] = ARGV[i]
  else
    lost[#lost + 1] = ARGV[i]
  end
end
if #mine > 0 then
  mine[#mine + 1] = 'JUSTID'
  redis.call('XCLAIM', stream, group, owner, 0, unpack(mine))
end
return lost
