#!lua flags=allow-oom
-- Notes the names of queues. A script only because it must work on a full server too: who enqueues does this when the
-- message is there, and must not be told that it is not.
-- KEYS: set of queue names
-- ARGV: names
redis.call('SADD', KEYS[1], unpack(ARGV))
