#!lua flags=allow-oom
-- Publishes events, and keeps them if there is a log.
-- KEYS: the log, or none
-- ARGV: channel and text of each
--@include keep
local log = KEYS[1]
for i = 2, log and #ARGV or 0, 2 do keep(log, ARGV[i]) end
for i = 1, #ARGV, 2 do
  redis.call('PUBLISH', ARGV[i], ARGV[i + 1])
end
