-- Partition::fill_many.
-- KEYS: head, then one per write. ARGV: deadline, base, then envelope and keep per write.
-- Returns for each write 0 refused, 1 stored, 2 late.

local now = now_micros()
local base = tonumber(ARGV[2])
local hindered, head = head_for(KEYS[1], tonumber(ARGV[1]), base, now)

-- Envelope::peek_version: what is not an envelope, or not even a string, counts as nothing. So does what is ahead of
-- the head: it is of a history that is over.
local function is_newer(key)
  local first = read('GETRANGE', key, 0, 15)
  if type(first) ~= 'string' or #first < 16 or string.sub(first, 1, 2) ~= 'NF' then
    return false
  end
  local present = struct.unpack('>I8', first, 9)
  return base < present and present <= head.sequence
end

local outcomes, is_noted = {}, false
for i = 2, #KEYS do
  outcomes[i - 1] = hindered or (is_newer(KEYS[i]) and 0 or 1)
  if outcomes[i - 1] == 1 then
    is_noted = note_tagged(head, ARGV[2 * i - 1]) or is_noted
  end
end
-- Before the entries that it is about.
if is_noted then
  write_head(KEYS[1], head)
end
for i = 2, #KEYS do
  if outcomes[i - 1] == 1 then
    store(KEYS[i], ARGV[2 * i - 1], ARGV[2 * i], base, now)
  end
end
return outcomes
