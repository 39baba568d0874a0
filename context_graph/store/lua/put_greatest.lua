-- Keep the greatest value of each field: whatever the order of arrival, the newest decision stays.
-- KEYS: 1 hash   ARGV: field, value ...
local changed = 0
for i = 1, #ARGV, 2 do
  local known = redis.call('HGET', KEYS[1], ARGV[i])
  if not known or ARGV[i + 1] > known then
    redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1])
    changed = changed + 1
  end
end
return changed
