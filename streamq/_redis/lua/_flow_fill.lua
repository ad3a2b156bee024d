-- Puts the values of what a node needs before its other arguments; empty: there are too many, its worker is to do that.
local most_bytes, most_inputs = 16384, 16
local function fill(flow, spec)
  local values, size = {}, 0
  for _, n in ipairs(spec['in']) do
    if type(n) == 'table' or #values == most_inputs or state_of(flow, n) ~= 's' then return '' end
    size = size + redis.call('HSTRLEN', flow.results, n)
    if size > most_bytes then return '' end
    values[#values + 1] = redis.call('HGET', flow.results, n)
    if (values[#values] or '') == '' then return '' end
  end
  local head = string.sub(spec.args, -1) == '}' and '{"*":[' or '['
  return head .. table.concat(values, ',') .. spec.args
end
