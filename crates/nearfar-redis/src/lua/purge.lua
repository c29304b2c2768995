-- Partition::purge, of some keys.
-- KEYS: head, tags, then keys. ARGV: fence window in milliseconds.
-- Returns how many are gone.

local now = now_micros()
local head = read_head(KEYS[1])

local function is_purgeable(bytes)
  if type(bytes) ~= 'string' or #bytes < HEADER or string.sub(bytes, 1, 3) ~= 'NF\1' then
    return false
  end
  local version = struct.unpack('>I8', bytes, 9)
  -- Of another history, or cleared: a fill that it could fence is refused for its base.
  if not head or version < head.floor or version > head.sequence then
    return true
  end
  local written_at = struct.unpack('>I8', string.char(string.byte(bytes, 17) % 128) .. string.sub(bytes, 18, 24))
  -- What was declared stale has the number of that change, and fences since then. A window of 0 has no end.
  local fences = ARGV[1] == '0' or now < math.max(written_at, version) + 1000 * tonumber(ARGV[1])
  return not fences and is_disowned(bytes, KEYS[2], head)
end

local removed = 0
for i = 3, #KEYS do
  if is_purgeable(read('GET', KEYS[i])) then
    removed = removed + redis.call('UNLINK', KEYS[i])
  end
end
return removed
