-- Partition::fill.
-- KEYS: head, key. ARGV: deadline, base, envelope, keep.
-- Returns 0 refused, 1 stored, 2 late.

local now = now_micros()
local base = tonumber(ARGV[2])
local hindered, head = head_for(KEYS[1], tonumber(ARGV[1]), base, now)
if hindered then
  return hindered
end

-- Envelope::peek_version: what is not an envelope, or not even a string, counts as nothing. So does what is ahead of
-- the head: it is of a history that is over.
local first = read('GETRANGE', KEYS[2], 0, 15)
if type(first) == 'string' and #first == 16 and string.sub(first, 1, 2) == 'NF' then
  local present = struct.unpack('>I8', first, 9)
  if base < present and present <= head.sequence then
    return 0
  end
end

store(KEYS[2], ARGV[3], ARGV[4], base, now)
return 1
