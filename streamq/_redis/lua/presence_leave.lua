#!lua flags=allow-oom
-- Removes one who leaves, and tells it.
-- KEYS: seen, info, told
-- ARGV: channel, member
--@include now
local seen, info, told = KEYS[1], KEYS[2], KEYS[3]
local channel, member = ARGV[1], ARGV[2]
--@include presence
remove_member(member)
