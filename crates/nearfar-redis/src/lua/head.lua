-- Shared by the scripts that touch a partition's head: the text "<sequence> <floor>", and behind it, once there was
-- anything with a tag, " <last change of a tag> <longest life of a tagged entry in milliseconds>".
-- One key for all numbers, so that eviction cannot take the floor and leave the sequence.

-- Of an envelope.
local HEADER = 76
local VALUE = 1
local MOST_TAGS, LONGEST_TAG = 64, 255
-- Milliseconds that are as good as for ever, and might be too many for PX.
local ENDLESS = 9007199254740992

local function now_micros()
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000000 + tonumber(time[2])
end

-- tostring() would write 1.7e+15.
local function decimal(number)
  return string.format('%.0f', number)
end

-- What is of another type is as good as missing. That is not so of what may not be read.
local function read(...)
  local answer = redis.pcall(...)
  if type(answer) == 'table' and answer.err and not string.find(answer.err, 'WRONGTYPE', 1, true) then
    error(answer.err)
  end
  return answer
end

-- A head that is missing, garbled or of the wrong type is no head.
local function read_head(key)
  local text = read('GET', key)
  if type(text) ~= 'string' then
    return nil
  end
  local sequence, floor, rest = string.match(text, '^(%d+) (%d+)(.*)$')
  if not sequence then
    return nil
  end
  local tagged, longest = '0', '0'
  if rest ~= '' then
    tagged, longest = string.match(rest, '^ (%d+) (%d+)$')
    if not tagged then
      return nil
    end
  end
  local head = {
    sequence = tonumber(sequence), floor = tonumber(floor),
    tagged = tonumber(tagged), longest = tonumber(longest),
  }
  -- From 2^53 on, Lua's numbers skip some.
  if head.sequence >= ENDLESS or head.floor > head.sequence or head.tagged > head.sequence or head.longest > ENDLESS then
    return nil
  end
  return head
end

-- Partition::head_for: what becomes of a proposal that is late or of another history; or else nil.
local function hindrance(head, deadline, base, now)
  if now > deadline then
    return 2
  end
  if not head or base < head.floor or base > head.sequence then
    return 0
  end
  return nil
end

local function begin_head(now)
  local sequence = math.max(now, 1)
  return { sequence = sequence, floor = sequence, tagged = 0, longest = 0 }
end

local function write_head(key, head)
  local text = decimal(head.sequence) .. ' ' .. decimal(head.floor)
  if head.tagged > 0 or head.longest > 0 then
    text = text .. ' ' .. decimal(head.tagged) .. ' ' .. decimal(head.longest)
  end
  redis.call('SET', key, text)
end

-- Puts big-endian numbers at the bytes from at+1 on. What is too short stays as it is.
local function stamped(bytes, at, ...)
  local numbers = { ... }
  local behind = at + 8 * #numbers
  if #bytes < behind then
    return bytes
  end
  local stamp = struct.pack('>' .. string.rep('I8', #numbers), ...)
  return string.sub(bytes, 1, at) .. stamp .. string.sub(bytes, behind + 1)
end

-- SET overwrites any type. `keep` is in milliseconds; 0 keeps for ever.
local function put(key, bytes, keep)
  if keep == '0' then
    redis.call('SET', key, bytes)
  else
    redis.call('SET', key, bytes, 'PX', keep)
  end
end

-- Stores an envelope with version, written-at and read-at. A large one is stamped after it was put there: to make a text of all
-- of it costs more than the second command. Writers of other programs may lack that right and do without: no envelope stays
-- without its version, which is what fences.
local function store(key, envelope, keep, version, now)
  if #envelope >= 256 then
    put(key, envelope, keep)
    local done = redis.pcall('SETRANGE', key, 8, struct.pack('>I8I8I8', version, now, now))
    if type(done) ~= 'table' or not done.err then
      return
    end
  end
  put(key, stamped(envelope, 8, version, now, now), keep)
end

local function is_value(bytes)
  return type(bytes) == 'string' and #bytes >= HEADER and string.sub(bytes, 1, 2) == 'NF'
    and string.byte(bytes, 4) == VALUE
end

-- For how long a value is to be kept from now on: until it is of no use, and for `least` in any case.
local function keep_of(bytes, now, least)
  local written_at = struct.unpack('>I8', string.char(string.byte(bytes, 17) % 128) .. string.sub(bytes, 18, 24))
  local read_at, ttl, grace, idle = struct.unpack('>I8I8I8I8', bytes, 25)
  local function ends(since, limit)
    return limit == 0 and ENDLESS or math.ceil((since - now) / 1000) + limit
  end
  local keep = math.max(math.min(ends(written_at, ttl), ends(read_at, idle)) + grace, tonumber(least))
  return (least == '0' or keep >= ENDLESS) and '0' or decimal(keep)
end

-- TagHead::note: whether an envelope that is stored makes the longest life of a tagged entry a longer one.
local function note_tagged(head, bytes)
  if #bytes < HEADER or string.sub(bytes, 1, 3) ~= 'NF\1' or struct.unpack('>I2', bytes, 7) == 0 then
    return false
  end
  local ttl, grace = struct.unpack('>I8I8', bytes, 33)
  local life = ttl == 0 and ENDLESS or math.min(ttl + grace, ENDLESS)
  if life <= head.longest then
    return false
  end
  head.longest = life
  return true
end

-- Changes of tags stand in a sorted set: what happened to a tag, '-' wrong or '~' stale, and its name, with the number of
-- the change. The member '+' says since when it is complete.
local WRONG, STALE, SINCE = '-', '~', '+'

local function score(key, member)
  local number = read('ZSCORE', key, member)
  return type(number) == 'string' and tonumber(number) or nil
end

-- Of an entry with a smaller version nobody knows what became of its tags.
local function known_since(key, head)
  return score(key, SINCE) or head.tagged
end

-- TagTable::mark: the last changes of a tag. What is not known counts as wrong.
local function mark_of(key, tag, since)
  return math.max(score(key, WRONG .. tag) or 0, since), score(key, STALE .. tag) or 0
end

-- Calls `visit` with the last changes of each tag of an envelope until it returns true; whether it did, or the tags cannot
-- be read. Where no tag was changed since the entry's version, none matters.
local function any_tag(bytes, key, head, visit)
  local count = struct.unpack('>I2', bytes, 7)
  if count > MOST_TAGS then
    return true
  end
  local at = HEADER + 1
  local matters = count > 0 and struct.unpack('>I8', bytes, 9) < head.tagged
  local since = matters and known_since(key, head)
  for _ = 1, count do
    if at + 1 > #bytes then
      return true
    end
    local len = struct.unpack('>I2', bytes, at)
    local tag = string.sub(bytes, at + 2, at + 1 + len)
    at = at + 2 + len
    if len == 0 or len > LONGEST_TAG or #tag < len then
      return true
    end
    if matters and visit(mark_of(key, tag, since)) then
      return true
    end
  end
  return false
end

-- Whether a tag of an entry was declared wrong since. Of what another generation wrote, nobody knows the tags.
local function is_disowned(bytes, key, head)
  if string.byte(bytes, 3) ~= 1 then
    return false
  end
  local version = struct.unpack('>I8', bytes, 9)
  return any_tag(bytes, key, head, function(wrong) return wrong > version end)
end

-- The log is for replay only: without it a node resyncs, so its failure must not fail the change. A log of another type, or
-- of a history that was ahead of this one, is begun anew. It keeps about so many messages; with 0 there is none.
local function append_to_log(key, most, version, message)
  if most == '0' then
    return
  end
  local function append()
    return redis.pcall('XADD', key, 'MAXLEN', '~', most, decimal(version) .. '-0', 'm', message)
  end
  local added = append()
  if type(added) == 'table' and added.err then
    redis.pcall('DEL', key)
    append()
  end
end
