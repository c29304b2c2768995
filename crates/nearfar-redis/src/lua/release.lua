-- Partition::release.
-- KEYS: a claim. ARGV: holder, what the echo channels of nodes begin with, notice.
-- Returns how many nodes were told.

local text = read('GET', KEYS[1])
if type(text) ~= 'string' then
  return 0
end
local holder, waiting = string.match(text, '^%d+ (%S+) %S+(.*)$')
if holder ~= ARGV[1] then
  return 0
end
redis.call('DEL', KEYS[1])
local told = 0
for node in string.gmatch(waiting, '%S+') do
  redis.call('PUBLISH', ARGV[2] .. node, ARGV[3])
  told = told + 1
end
return told
