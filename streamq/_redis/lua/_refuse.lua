-- Finds what would make a script fail after its first write. The server has checked that all keys may be used, but not
-- that commands may.
local function find_forbidden(...)
  for _, commands in ipairs({ ... }) do
    for _, command in ipairs(commands) do
      if not redis.acl_check_cmd(command, KEYS[1], '*', 'a', 'b') then return command end
    end
  end
  if not redis.acl_check_cmd('XGROUP', 'CREATE', KEYS[1], ARGV[1], '0', 'MKSTREAM') then return 'XGROUP' end
end

-- Says which of some keys, the first of them at `at`, is neither missing nor of the type that is needed.
local function find_mistyped(at, needed)
  for n, need in ipairs(needed) do
    local place = at + n - 1
    local kind = redis.call('TYPE', KEYS[place]).ok
    if kind ~= need and kind ~= 'none' then return KEYS[place] .. ' is a ' .. kind .. ' and no ' .. need end
  end
end
