-- Partition::change.
-- KEYS: head, log, then one per write.
-- ARGV: deadline, clears, bus channel, log length, message, then envelope and keep per write.
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
if ARGV[2] == '1' then
  floor = version
end

-- The head first: what forbids writing (a replica, a full disk, no memory) shows before anything has happened. Then
-- PUBLISH, which an ACL may forbid: a number without its message is a gap that every node notices, whereas a value
-- without its message would be believed.
write_head(KEYS[1], { sequence = version, floor = floor })
local message = stamped(ARGV[5], 4, version, previous)
redis.call('PUBLISH', ARGV[3], message)
for i = 3, #KEYS do
  local at = FIRST_WRITE + 2 * (i - 3)
  store(KEYS[i], ARGV[at], ARGV[at + 1], version, now)
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
