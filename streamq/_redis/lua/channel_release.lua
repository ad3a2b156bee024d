#!lua flags=allow-oom
-- Gives messages back that a consumer has and will not handle: others may claim them as if its lease were over, and
-- this time is not counted among those that they were handed over.
-- KEYS: log
-- ARGV: group, consumer, lease in ms, then the entries
local log, group, consumer, lease = KEYS[1], ARGV[1], ARGV[2], ARGV[3]
for i = 4, #ARGV do
  local pending = redis.pcall('XPENDING', log, group, ARGV[i], ARGV[i], 1)[1]
  if pending and pending[2] == consumer then
    local times = math.max(0, pending[4] - 1)
    redis.call('XCLAIM', log, group, consumer, 0, ARGV[i], 'IDLE', lease, 'RETRYCOUNT', times, 'JUSTID')
  end
end
