-- Partition::fill_many.
-- KEYS: head, then one per fill. ARGV: per fill deadline, base, envelope and keep.
-- Returns for each fill 0 refused, 1 stored, 2 late.

local now = now_micros()
local head = read_head(KEYS[1])

-- Envelope::peek_version: what is not an envelope, or not even a string, counts as nothing. So does what is ahead of
-- the head: it is of a history that is over.
local function is_newer(key, base)
  local first = read('GETRANGE', key, 0, 15)
  if type(first) ~= 'string' or #first < 16 or string.sub(first, 1, 2) ~= 'NF' then
    return false
  end
  local present = struct.unpack('>I8', first, 9)
  return base < present and present <= head.sequence
end

-- One after the other: two may be of one key.
local function fill(key, deadline, base, envelope, keep)
  local hindered = hindrance(head, deadline, base, now)
  if hindered then
    return hindered
  end
  if is_newer(key, base) then
    return 0
  end
  -- Before the entry that it is about.
  if note_tagged(head, envelope) then
    write_head(KEYS[1], head)
  end
  store(key, envelope, keep, base, now)
  return 1
end

local outcomes = {}
for i = 2, #KEYS do
  local at = 4 * (i - 2)
  outcomes[i - 1] = fill(KEYS[i], tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2]), ARGV[at + 3], ARGV[at + 4])
end
return outcomes
