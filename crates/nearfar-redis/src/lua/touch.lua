-- Partition::touch.
-- KEYS: key. ARGV: fence window in milliseconds, 0 for ever.

local bytes = read('GET', KEYS[1])
if not is_value(bytes) or string.byte(bytes, 3) ~= 1 or string.byte(bytes, 17) >= 128 then
  return
end
if struct.unpack('>I8', bytes, 49) == 0 then
  return
end
local now = now_micros()
bytes = stamped(bytes, 24, now)
put(KEYS[1], bytes, keep_of(bytes, now, ARGV[1]))
