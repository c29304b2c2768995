-- What stands under keys that were written to.
-- KEYS: head, then the keys.
-- Returns time, sequence, floor, how many keys were ever evicted, and for each key its first bytes and the milliseconds that
-- it has left, as PTTL tells them: -1 for ever, -2 gone. -1 for what is not known.

local now = now_micros()
local head = read_head(KEYS[1]) or { sequence = -1, floor = -1 }
local answer = { now, head.sequence, head.floor, -1 }
local any_gone = false

for i = 2, #KEYS do
  local left = redis.call('PTTL', KEYS[i])
  local first = ''
  if left == -2 then
    any_gone = true
  else
    first = read('GETRANGE', KEYS[i], 0, 23)
    if type(first) ~= 'string' then
      first = ''
    end
  end
  answer[#answer + 1] = first
  answer[#answer + 1] = left
end

-- Costs more than all of the above, so it is asked only where it matters; and the user may not be allowed to.
if any_gone then
  local info = redis.pcall('INFO', 'stats')
  if type(info) == 'string' then
    answer[4] = tonumber(string.match(info, 'evicted_keys:(%d+)')) or -1
  end
end
return answer
