-- Delete a hash that was written from an entry before a position.
--
-- KEYS: 1 hash
-- ARGV: 1 name of the field with its version (a position's sort key), 2 the position's sort key
-- Returns 1 when it was deleted, else 0.
local known = redis.call('HGET', KEYS[1], ARGV[1])
if known and known < ARGV[2] then
  return redis.call('DEL', KEYS[1])
end
return 0
