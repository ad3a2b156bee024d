#!lua flags=allow-oom
-- Publishes events.
-- KEYS: none
-- ARGV: channel and text of each
for i = 1, #ARGV, 2 do
  redis.call('PUBLISH', ARGV[i], ARGV[i + 1])
end
