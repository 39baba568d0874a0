-- Put data keys back from the archive, and who was erased: the erased get no key, and lose one that is there.
--
-- KEYS: 1 vault hash (tag -> wrapped key), 2 erased hash (tag -> erasure id)
-- ARGV: 1 number of erased subjects, then for each its tag and erasure id, then pairs of a tag and its wrapped key
-- A key that is there already stays as it is.
local last = 1 + 2 * tonumber(ARGV[1])
for i = 2, last, 2 do
  redis.call('HSETNX', KEYS[2], ARGV[i], ARGV[i + 1])
  redis.call('HDEL', KEYS[1], ARGV[i])
end
for i = last + 1, #ARGV, 2 do
  if redis.call('HEXISTS', KEYS[2], ARGV[i]) == 0 then
    redis.call('HSETNX', KEYS[1], ARGV[i], ARGV[i + 1])
  end
end
return 1
