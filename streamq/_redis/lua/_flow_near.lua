-- Finds the keys of nodes that may be enqueued here: their numbers are in ARGV from `at` on, record and stream of each
-- in
-- KEYS from `first` on.
local function find_near(flow, at, count, first)
  flow.near = {}
  for n = 0, count - 1 do
    local near, key = {}, first + 2 * n
    near.record, near.stream = KEYS[key], KEYS[key + 1]
    flow.near[tonumber(ARGV[at + n])] = near
  end
end
