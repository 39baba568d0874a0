-- Replace a wrapped data key, unless it was changed or destroyed meanwhile.
--
-- KEYS: 1 vault hash
-- ARGV: 1 tag, 2 the wrapped key as it was read, 3 the same key wrapped anew
-- Returns 1 when it was replaced, else 0.
if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] then
  return 0
end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
return 1
