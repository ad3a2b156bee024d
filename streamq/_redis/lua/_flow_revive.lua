-- Reads what is to run again of a flow, and sees whether that still fits.
local function each_of(refs, states, visit)
  for _, ref in ipairs(refs) do
    local first, last, step = ref, ref, 1
    if type(ref) == 'table' then first, last, step = unpack(ref) end
    for n = first, last, step do visit(n, string.sub(states, n + 1, n + 1)) end
  end
end

-- Gives the nodes to send, which are `again`, how many of all will be left, and notes for those that wait how many they
-- wait for; nothing if something is not as it was.
local function revival(states, refs, was, waiting)
  local found, fits = { send = {}, again = {} }, true
  found.left = select(2, string.gsub(states, '[wr]', ''))

  local function expect(n, state, before)
    if state ~= before then fits = false end
    if state ~= 'w' then found.left = found.left + 1 end
    found.again[n] = true
  end

  each_of(refs, states, function(n, state)
    found.send[#found.send + 1] = n
    expect(n, state, string.sub(was, #found.send, #found.send))
  end)
  for _, one in ipairs(waiting) do
    each_of({ one[1] }, states, function(n, state) expect(n, state, one[2]) end)
  end
  for _, one in ipairs(waiting) do
    one.count = 0
    each_of(one[3], states, function(n, state)
      if found.again[n] or state == 'w' or state == 'r' then
        one.count = one.count + 1
      elseif failing[state] and one[4] == 1 then
        fits = false
      end
    end)
  end
  return fits and found
end
