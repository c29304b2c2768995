-- Partition::change.
-- KEYS: head, log, tags, then one per write, unless those are of tags.
-- ARGV: deadline, effect, bus channel, log length, message, precondition, then per write envelope and keep, or tag and
-- fence window. The precondition is empty, or 'absent', or '=', the decimal base, a space, and an identity.
-- Returns the version; 0 after the deadline, -1 if the precondition is not met.

local TOMBSTONE = 2
local FIRST_WRITE = 7
local TAGS = { invalidate_tags = WRONG, expire_tags = STALE }

local effect = ARGV[2]
local now = now_micros()
if now > tonumber(ARGV[1]) then
  return 0
end

local present_head = read_head(KEYS[1])

-- Partition::is_fresh.
local function is_fresh(bytes)
  if not present_head or not is_value(bytes) or string.byte(bytes, 3) ~= 1 or string.byte(bytes, 17) >= 128 then
    return false
  end
  local version, written_at, read_at, ttl, _, idle = struct.unpack('>I8I8I8I8I8I8', bytes, 9)
  local function lasts(since, limit)
    return limit == 0 or now < since + 1000 * limit
  end
  return present_head.floor <= version and version <= present_head.sequence
    and lasts(written_at, ttl) and lasts(read_at, idle)
    and not any_tag(bytes, KEYS[3], present_head, function(wrong, stale) return math.max(wrong, stale) > version end)
end

-- Partition::meets.
local function is_met()
  if ARGV[6] == '' then
    return true
  end
  if ARGV[6] == 'absent' then
    return not is_fresh(read('GET', KEYS[4]))
  end
  local base, seen = string.match(ARGV[6], '^=(%d+) (.*)$')
  base = tonumber(base)
  local identity = read('GETRANGE', KEYS[4], 8, 23)
  if (type(identity) == 'string' and identity or '') ~= seen then
    return false
  end
  return seen == '' or (present_head ~= nil and present_head.floor <= base and base <= present_head.sequence
    and present_head.tagged <= base)
end
if not is_met() then
  return -1
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
if TAGS[effect] or buries_only() then
  redis.call('PERSIST', KEYS[1])
end

local head = present_head or begin_head(now)
local version = math.max(head.sequence + 1, now)
local previous = head.sequence
local next_head = { sequence = version, floor = head.floor, tagged = head.tagged, longest = head.longest }
if effect == 'clear' then
  -- Whatever carries a tag is dead.
  next_head.floor, next_head.tagged, next_head.longest = version, 0, 0
elseif effect == 'write' then
  for i = FIRST_WRITE, #ARGV, 2 do
    note_tagged(next_head, ARGV[i])
  end
elseif TAGS[effect] then
  next_head.tagged = version
end

-- Whether there was a value that is alive, which is stale now: the highest bit of written-at says so. It is kept for as
-- long as it would have been, and for `keep` at least. A wrong value must not become a stale one.
local function expire(key, keep)
  local bytes = read('GET', key)
  if not is_value(bytes) then
    return false
  end
  local present = struct.unpack('>I8', bytes, 9)
  if present < head.floor or present > head.sequence or is_disowned(bytes, KEYS[3], head) then
    return false
  end
  local stamp = struct.pack('>I8', version) .. string.char(string.byte(bytes, 17) % 128 + 128)
  put(key, string.sub(bytes, 1, 8) .. stamp .. string.sub(bytes, 18), keep_of(bytes, now, keep))
  return true
end

-- TagTable::change and TagTable::prune.
local function change_tags(prefix)
  if type(read('ZSCORE', KEYS[3], SINCE)) == 'table' then
    -- Of another type.
    redis.call('DEL', KEYS[3])
  end
  -- Where there was a change before, a table that is not there is one that was lost.
  local since = score(KEYS[3], SINCE) or (head.tagged > 0 and version or 0)
  local window = ARGV[FIRST_WRITE + 1] or '0'
  if next_head.longest < ENDLESS and window ~= '0' then
    local least = decimal(math.max(now - 1000 * (next_head.longest + tonumber(window)), 0))
    local greatest = redis.call('ZRANGE', KEYS[3], '(' .. least, '-inf', 'BYSCORE', 'REV', 'LIMIT', 0, 1, 'WITHSCORES')
    since = math.max(since, tonumber(greatest[2]) or 0)
    redis.call('ZREMRANGEBYSCORE', KEYS[3], '-inf', '(' .. least)
  end
  redis.call('ZADD', KEYS[3], decimal(since), SINCE)
  for i = FIRST_WRITE, #ARGV, 2 do
    redis.call('ZADD', KEYS[3], decimal(version), prefix .. ARGV[i])
  end
end

-- The head first: what forbids writing (a replica, a full disk, no memory) shows before anything has happened. Then
-- PUBLISH, which an ACL may forbid: a number without its message is a gap that every node notices, whereas a value
-- without its message would be believed.
write_head(KEYS[1], next_head)
local message = stamped(ARGV[5], 4, version, previous)
redis.call('PUBLISH', ARGV[3], message)
if TAGS[effect] then
  change_tags(TAGS[effect])
elseif effect == 'clear' then
  redis.call('DEL', KEYS[3])
end
for i = 4, #KEYS do
  local at = FIRST_WRITE + 2 * (i - 4)
  if effect ~= 'expire' or not expire(KEYS[i], ARGV[at + 1]) then
    store(KEYS[i], ARGV[at], ARGV[at + 1], version, now)
  end
end

append_to_log(KEYS[2], ARGV[4], version, message)
return version
