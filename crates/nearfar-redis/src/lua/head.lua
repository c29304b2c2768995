-- Shared by the scripts that touch a partition's head: the text "<sequence> <floor>".
-- One key for both numbers, so that eviction cannot take the floor and leave the sequence.

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

local function begin_head(now)
  local sequence = math.max(now, 1)
  return { sequence = sequence, floor = sequence }
end

local function write_head(key, head)
  redis.call('SET', key, decimal(head.sequence) .. ' ' .. decimal(head.floor))
end

-- Puts two big-endian numbers at bytes at+1 .. at+16. What is too short stays as it is.
local function stamped(bytes, at, first, second)
  if #bytes < at + 16 then
    return bytes
  end
  return string.sub(bytes, 1, at) .. struct.pack('>I8I8', first, second) .. string.sub(bytes, at + 17)
end

-- SET overwrites any type. `keep` is in milliseconds; 0 keeps for ever.
local function put(key, bytes, keep)
  if keep == '0' then
    redis.call('SET', key, bytes)
  else
    redis.call('SET', key, bytes, 'PX', keep)
  end
end

local function store(key, envelope, keep, version, now)
  put(key, stamped(envelope, 8, version, now), keep)
end
