-- The server's time: as Redis has it, in seconds and microseconds, and the ms that has begun.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
