-- Says when to look into a room again, in so many ms. What is a second or more away is looked at on the second, all
-- such rooms together: else each would have all workers wake up at a moment of its own. So nobody is late, and who is
-- looked at too early gives the rest of the wait.
local function look_in(wait)
  return wait < 1000 and now + wait or now + wait - (now + wait) % 1000
end
