-- What an erased receipt or a citing event that is gone said of an event is taken back, as if it had never been.
-- KEYS: 1 hash, 2 set of events with any   ARGV: receipt or citing event, event that it was about
local newest = redis.call('HGET', KEYS[1], 'of:' .. ARGV[1])
if not newest then
  return 0
end
for _, field in ipairs(redis.call('HKEYS', KEYS[1])) do
  if string.sub(field, 1, 3) == 'at:' and string.sub(field, 21) == ARGV[1] then
    redis.call('HDEL', KEYS[1], field)
  end
end
redis.call('HDEL', KEYS[1], 'of:' .. ARGV[1])
redis.call('HINCRBY', KEYS[1], 'uses', -(tonumber(string.sub(newest, 18)) or 0))
if redis.call('HLEN', KEYS[1]) == 1 then
  redis.call('DEL', KEYS[1])
  redis.call('ZREM', KEYS[2], ARGV[2])
end
return 1
