-- Partition::change.
-- KEYS: head, log, then one per write.
-- ARGV: deadline, effect, bus channel, log length, message, then envelope and keep per write.
-- Returns the version, or 0 after the deadline.

local TOMBSTONE = 2
local FIRST_WRITE = 6

local now = now_micros()
if now > tonumber(ARGV[1]) then
  return 0
end

-- Redis without memory refuses a script's first write if that needs memory, and no later one. An invalidation must
-- get through, so it begins with a write that needs none; a value must not, so its first write is the head's SET.
local function buries_only()
  for i = FIRST_WRITE, #ARGV, 2 do
    if string.byte(ARGV[i], 4) ~= TOMBSTONE then
      return false
    end
  end
  return true
end
if buries_only() then
  redis.call('PERSIST', KEYS[1])
end

local head = read_head(KEYS[1]) or begin_head(now)
local version = math.max(head.sequence + 1, now)
local previous = head.sequence
local floor = head.floor
if ARGV[2] == 'clear' then
  floor = version
end

-- Whether there was a value that is alive, which is stale now: the highest bit of written-at says so. It is kept for as
-- long as it would have been, and for `keep` at least.
local function expire(key, keep)
  local bytes = read('GET', key)
  if not is_value(bytes) then
    return false
  end
  local present = struct.unpack('>I8', bytes, 9)
  if present < head.floor or present > head.sequence then
    return false
  end
  local stamp = struct.pack('>I8', version) .. string.char(string.byte(bytes, 17) % 128 + 128)
  put(key, string.sub(bytes, 1, 8) .. stamp .. string.sub(bytes, 18), keep_of(bytes, now, keep))
  return true
end

-- The head first: what forbids writing (a replica, a full disk, no memory) shows before anything has happened. Then
-- PUBLISH, which an ACL may forbid: a number without its message is a gap that every node notices, whereas a value
-- without its message would be believed.
write_head(KEYS[1], { sequence = version, floor = floor })
local message = stamped(ARGV[5], 4, version, previous)
redis.call('PUBLISH', ARGV[3], message)
for i = 3, #KEYS do
  local at = FIRST_WRITE + 2 * (i - 3)
  if ARGV[2] ~= 'expire' or not expire(KEYS[i], ARGV[at + 1]) then
    store(KEYS[i], ARGV[at], ARGV[at + 1], version, now)
  end
end

-- The log is for replay only: without it a node resyncs, so its failure must not fail the change. A log of another
-- type, or of a history that was ahead of this one, is begun anew.
if ARGV[4] ~= '0' then
  local function append()
    return redis.pcall('XADD', KEYS[2], 'MAXLEN', '~', ARGV[4], decimal(version) .. '-0', 'm', message)
  end
  local added = append()
  if type(added) == 'table' and added.err then
    redis.pcall('DEL', KEYS[2])
    append()
  end
end
return version
