#!lua flags=allow-oom
-- Creates a stream and its group; an error if the group is there. It begins at 0: one at $ would miss what is there.
-- A script only because it must work on a full server too: a worker that cannot begin frees no memory.
-- KEYS: stream
-- ARGV: group
redis.call('XGROUP', 'CREATE', KEYS[1], ARGV[1], '0', 'MKSTREAM')
