-- Finish entries for a group and remove their dead letters, in one step: they were handled, or are given up for good.
--
-- KEYS: 1 ledger stream, 2 dead letters (stream), 3 their places (hash), 4 their counts (hash), 5 sessions held by
--       dead letters of the group (hash), 6 again (zset), 7 tries (hash)
-- ARGV: 1 group, then for each entry: stream id, sort key
-- Returns the number of dead letters removed.
local dead, places, counts, held, group = KEYS[2], KEYS[3], KEYS[4], KEYS[5], ARGV[1]

local function take(key, field, by)
  if redis.call('HEXISTS', key, field) == 1 and redis.call('HINCRBY', key, field, -by) <= 0 then
    redis.call('HDEL', key, field)
  end
end

local removed = 0
for i = 2, #ARGV, 2 do
  local place = group .. '/' .. ARGV[i]
  redis.call('XACK', KEYS[1], group, ARGV[i])
  redis.call('ZREM', KEYS[6], ARGV[i + 1])
  redis.call('HDEL', KEYS[7], ARGV[i + 1])
  local id = redis.call('HGET', places, place)
  if id then
    local letter = redis.call('XRANGE', dead, id, id)[1]
    redis.call('XDEL', dead, id)
    redis.call('HDEL', places, place)
    take(counts, group, 1)
    if letter then
      for j = 1, #letter[2], 2 do
        if letter[2][j] == 'session_id' and letter[2][j + 1] ~= '' then
          take(held, letter[2][j + 1], 1)
        elseif letter[2][j] == 'lost' and letter[2][j + 1] ~= '0' then
          take(counts, 'lost/' .. group, tonumber(letter[2][j + 1]))
        end
      end
    end
    removed = removed + 1
  end
end
return removed
