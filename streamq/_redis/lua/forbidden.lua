#!lua flags=no-writes
-- Finds out what the caller may not do, without doing it.
-- KEYS: none
-- ARGV: commands, each a JSON list of its words
-- Returns the positions of those that are forbidden, or that the server does not know.
local check = redis.acl_check_cmd or error('this server cannot tell what is permitted')
local forbidden = {}
for i, words in ipairs(ARGV) do
  local known, allowed = pcall(check, unpack(cjson.decode(words)))
  if not (known and allowed) then forbidden[#forbidden + 1] = i - 1 end
end
return forbidden
