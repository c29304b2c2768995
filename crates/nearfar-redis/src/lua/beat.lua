-- Partition::beat.
-- KEYS: head, nodes. ARGV: node, forget-after in microseconds, echo channel, the echo up to its sequence.
-- Returns sequence and time.

local now = now_micros()

-- A write even when there is nothing to prune, so that a demoted primary refuses the beat; and one that needs no
-- memory, so that Redis without memory still lets the rest through.
local oldest = decimal(now - tonumber(ARGV[2]))
local pruned = redis.pcall('ZREMRANGEBYSCORE', KEYS[2], '-inf', '(' .. oldest)
if type(pruned) == 'table' and pruned.err then
  -- Of another type; or refused, and then so is this.
  redis.call('DEL', KEYS[2])
end

local head = read_head(KEYS[1])
if not head then
  head = begin_head(now)
  write_head(KEYS[1], head)
end
redis.call('ZADD', KEYS[2], decimal(now), ARGV[1])
redis.call('PUBLISH', ARGV[3], ARGV[4] .. struct.pack('>I8I8', head.sequence, now))
return { head.sequence, now }
