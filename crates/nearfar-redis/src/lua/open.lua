-- Records the settings of a namespace if nobody has. KEYS: meta. ARGV: settings.
-- SET .. NX GET in one command needs Redis 7.

local recorded = redis.call('GET', KEYS[1])
if recorded then
  return recorded
end
redis.call('SET', KEYS[1], ARGV[1])
return ARGV[1]
