-- Write a hash unless it already holds a newer one: whatever the order of arrival, the highest position stays.
-- KEYS: 1 hash   ARGV: 1 position sort key, then field, value ...
local known = redis.call('HGET', KEYS[1], 'order')
if known and known >= ARGV[1] then
  return 0
end
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], 'order', ARGV[1], unpack(ARGV, 2))
return 1
