-- Partition::claim. A claim stands as "<until> <holder> <identity of what was seen, in hex> <node that waits> ..."
-- KEYS: key, its claim. ARGV: identity of what was seen, holder, node, keep in milliseconds.
-- Returns -2 overtaken, -1 granted, or else for how many microseconds another holds it.

local now = now_micros()
local identity = read('GETRANGE', KEYS[1], 8, 23)
if type(identity) ~= 'string' then
  identity = ''
end
if identity ~= ARGV[1] then
  return -2
end

local function hold(left, holder, seen, waiting)
  local text = decimal(now + left) .. ' ' .. holder .. ' ' .. seen .. waiting
  redis.call('SET', KEYS[2], text, 'PX', decimal(math.ceil(left / 1000)))
end

local function hex(byte)
  return string.format('%02x', string.byte(byte))
end

local keep = 1000 * tonumber(ARGV[4])
local seen = '-' .. string.gsub(identity, '.', hex)
local text = read('GET', KEYS[2])
local waiting = ''
if type(text) == 'string' then
  local ends, holder, held, others = string.match(text, '^(%d+) (%S+) (%S+)(.*)$')
  -- None is believed to last for longer than this one would: a clock may have been set.
  local left = math.min((tonumber(ends) or 0) - now, keep)
  if left > 0 and held == seen then
    if not string.find(others, ARGV[3], 1, true) then
      others = others .. ' ' .. ARGV[3]
    end
    hold(left, holder, seen, others)
    return left
  end
  if left > 0 then
    -- Its load was stored, or cannot be any more.
    waiting = others
  end
end

hold(keep, ARGV[2], seen, waiting)
return -1
