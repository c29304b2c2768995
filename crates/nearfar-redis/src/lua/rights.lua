-- What this user, or anybody, is refused of what the other scripts and commands need. Inside a script most servers do
-- not say what they have refused, and some of the scripts make do with a refusal, so it is asked for in advance.
-- KEYS: head, log, nodes, tags, a value, the key to try on; who may not use them may not run this. ARGV: the commands, each with
-- its arguments, which have no spaces.
-- Returns pairs: what is refused, and why.

-- In the words of Redis 6.2, of Redis 7.0, and of later ones and Valkey. Other errors are not about rights.
local reasons = {
  { "can't run this command", 'command' },
  { 'no permissions to run', 'command' },
  { 'the channel mentioned', 'channel' },
  { 'to access a channel', 'channel' },
  { 'nknown .- ?command called', 'unknown' },
}

local refused = {}
for _, words in ipairs(ARGV) do
  local trial = {}
  for word in string.gmatch(words, '%S+') do
    table.insert(trial, word)
  end
  local answer = redis.pcall(unpack(trial))
  for _, reason in ipairs(reasons) do
    if type(answer) == 'table' and answer.err and string.find(answer.err, reason[1]) then
      table.insert(refused, trial[1])
      table.insert(refused, reason[2])
      break
    end
  end
end
return refused
