-- Partition::claim. A claim stands as "<until> <holder> <node that waits> ..."
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

local text = read('GET', KEYS[2])
if type(text) == 'string' then
  local ends, waiting = string.match(text, '^(%d+) %S+(.*)$')
  local left = (tonumber(ends) or 0) - now
  if left > 0 then
    if not string.find(waiting, ARGV[3], 1, true) then
      redis.call('SET', KEYS[2], text .. ' ' .. ARGV[3], 'PX', decimal(math.ceil(left / 1000)))
    end
    return left
  end
end

redis.call('SET', KEYS[2], decimal(now + 1000 * tonumber(ARGV[4])) .. ' ' .. ARGV[2], 'PX', ARGV[4])
return -1
