-- Partition::renew.
-- KEYS: head, key. ARGV: deadline, base, identity of what must stand there, header, keep.
-- Returns 0 refused, 1 renewed, 2 late.

local now = now_micros()
local base = tonumber(ARGV[2])
local head = read_head(KEYS[1])
local hindered = hindrance(head, tonumber(ARGV[1]), base, now)
if hindered then
  return hindered
end

local bytes = read('GET', KEYS[2])
if type(bytes) ~= 'string' or #bytes < HEADER or string.sub(bytes, 1, 2) ~= 'NF' then
  return 0
end
if string.sub(bytes, 9, 24) ~= ARGV[3] or struct.unpack('>I8', bytes, 9) > base then
  return 0
end
if note_tagged(head, ARGV[4]) then
  write_head(KEYS[1], head)
end
store(KEYS[2], ARGV[4] .. string.sub(bytes, HEADER + 1), ARGV[5], base, now)
return 1
