-- Destroy a subject's data key and remember that it was: nothing is sealed for the subject again.
--
-- KEYS: 1 vault hash (tag -> wrapped key), 2 erased hash (tag -> erasure id)
-- ARGV: 1 tag, 2 erasure id
-- Returns the erasure id in force (that of the first erasure) and the wrapped key that was destroyed, or ''.
redis.call('HSETNX', KEYS[2], ARGV[1], ARGV[2])
local wrapped = redis.call('HGET', KEYS[1], ARGV[1])
redis.call('HDEL', KEYS[1], ARGV[1])
return {redis.call('HGET', KEYS[2], ARGV[1]), wrapped or ''}
