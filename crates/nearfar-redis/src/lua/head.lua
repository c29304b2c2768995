-- Shared by the scripts that touch a partition's head: the text "<sequence> <floor>".
-- One key for both numbers, so that eviction cannot take the floor and leave the sequence.

-- Of an envelope.
local HEADER = 76
local VALUE = 1
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
  local sequence, floor = string.match(text, '^(%d+) (%d+)$')
  if not sequence then
    return nil
  end
  sequence, floor = tonumber(sequence), tonumber(floor)
  -- From 2^53 on, Lua's numbers skip some.
  if sequence >= 9007199254740992 or floor > sequence then
    return nil
  end
  return { sequence = sequence, floor = floor }
end

-- Partition::head_for: what becomes of a proposal that is late or of another history; or else nil, and the head.
local function head_for(key, deadline, base, now)
  if now > deadline then
    return 2
  end
  local head = read_head(key)
  if not head or base < head.floor or base > head.sequence then
    return 0
  end
  return nil, head
end

local function begin_head(now)
  local sequence = math.max(now, 1)
  return { sequence = sequence, floor = sequence }
end

local function write_head(key, head)
  redis.call('SET', key, decimal(head.sequence) .. ' ' .. decimal(head.floor))
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

-- Version, written-at, read-at.
local function store(key, envelope, keep, version, now)
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
