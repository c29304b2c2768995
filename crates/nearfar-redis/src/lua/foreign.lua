-- A change by a writer in another language, who need not know the bytes of messages and tombstones.
-- KEYS: head, log, then the values' names. Without any of those, everything in the partition is declared wrong.
-- ARGV: PUBLISH, or SPUBLISH on a cluster of Redis 7 or newer; about how many messages the log keeps, 0 for no log; the
-- fence window in milliseconds, or how long to keep a value, 0 for ever; the envelope of a value, not stamped, or nothing to
-- invalidate.
-- Returns the version of the change.

local TOMBSTONE = 'NF\1\2' .. string.rep('\0', 68) .. '\238\53\238\180'
local MESSAGE = 'NM\1'
local OF_KEYS, OF_CLEAR = '\1', '\2'

local prefix = string.match(KEYS[1], '^({.*})#head$')
if not prefix then
  error('the first key is {namespace.partition}#head')
end
local envelope = ARGV[4]
if not envelope or envelope == '' then
  envelope = TOMBSTONE
  -- An invalidation begins with a write that needs no memory, see change.lua.
  redis.call('PERSIST', KEYS[1])
end

-- The origin, between the stamp and the count, is no node's.
local keys = {}
for i = 3, #KEYS do
  local key = string.sub(KEYS[i], #prefix + 2)
  keys[#keys + 1] = struct.pack('>I4', #key) .. key
end
local kind = #keys == 0 and OF_CLEAR or OF_KEYS
local message = MESSAGE .. kind .. string.rep('\0', 24) .. struct.pack('>I4', #keys) .. table.concat(keys)

local now = now_micros()
local head = read_head(KEYS[1]) or begin_head(now)
local previous = head.sequence
local version = math.max(previous + 1, now)
head.sequence = version
if kind == OF_CLEAR then
  head.floor = version
end
message = stamped(message, 4, version, previous)

note_tagged(head, envelope)

-- In the order of change.lua, and for its reasons.
write_head(KEYS[1], head)
redis.call(ARGV[1], prefix .. '#bus', message)
for i = 3, #KEYS do
  store(KEYS[i], envelope, ARGV[3], version, now)
end
append_to_log(KEYS[2], ARGV[2], version, message)
return version
