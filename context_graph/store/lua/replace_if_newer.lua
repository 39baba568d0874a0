-- Replace a part of a hash unless the part that is there is as new: the newest wins in whatever order writes arrive.
-- What is there already is not written again: RediSearch counts a rewritten document's words twice until its garbage
-- collection, which ruins the rarity of words that BM25 ranks by.
--
-- KEYS: 1 hash
-- ARGV: 1 name of the field that holds the part's version (ordered by bytes), 2 the new version,
--       3 number of field names of the part, then these names, then pairs of field and value to set
-- Returns 1 when the part was written, 0 when one as new stands.
local known = redis.call('HGET', KEYS[1], ARGV[1])
if known and known >= ARGV[2] then
  return 0
end
local names = tonumber(ARGV[3])
redis.call('HDEL', KEYS[1], unpack(ARGV, 4, 3 + names))
redis.call('HSET', KEYS[1], unpack(ARGV, 4 + names))
return 1
