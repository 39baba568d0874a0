-- Replace a part of each hash unless the part that is there is as new: the newest wins in whatever order writes arrive.
-- What is there already is not written again: RediSearch counts a rewritten document's words twice until its garbage
-- collection, which ruins the rarity of words that BM25 ranks by.
--
-- KEYS: the hashes
-- ARGV: 1 name of the field that holds the part's version (ordered by bytes), 2 number of field names of the part, then
--       these names, then for each key: the new version, number of the values that follow, pairs of field and value
-- Returns how many were written.
local names = tonumber(ARGV[2])
local place = 3 + names
local written = 0
for number = 1, #KEYS do
  local known = redis.call('HGET', KEYS[number], ARGV[1])
  local last = place + 1 + tonumber(ARGV[place + 1])
  if not known or known < ARGV[place] then
    if known or redis.call('EXISTS', KEYS[number]) == 1 then
      redis.call('HDEL', KEYS[number], unpack(ARGV, 3, 2 + names))
    end
    redis.call('HSET', KEYS[number], unpack(ARGV, place + 2, last))
    written = written + 1
  end
  place = last + 1
end
return written
