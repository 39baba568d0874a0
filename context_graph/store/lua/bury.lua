-- Write a dead letter and finish the entry for its group, in one step; a letter of the same entry is replaced.
--
-- KEYS: 1 ledger stream, 2 dead letters (stream), 3 their places (hash), 4 their counts (hash), 5 sessions held by
--       dead letters of the group (hash), 6 again (zset), 7 tries (hash), 8 parked (zset)
-- ARGV: 1 group, 2 stream id, 3 sort key, 4 id of the letter that it was re-driven from or '', 5 session or '',
--       6 events lost or 0, then the letter's field names and values
-- Returns the letter's id, or '' when the letter it was re-driven from is gone: discarded or erased meanwhile.
local dead, places, counts, held = KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local group, place, session = ARGV[1], ARGV[1] .. '/' .. ARGV[2], ARGV[5]

local function add(key, field, by)
  if redis.call('HINCRBY', key, field, by) <= 0 then
    redis.call('HDEL', key, field)
  end
end

redis.call('XACK', KEYS[1], group, ARGV[2])
redis.call('ZREM', KEYS[6], ARGV[3])
redis.call('HDEL', KEYS[7], ARGV[3])
if session ~= '' then
  redis.call('ZREM', KEYS[8], session .. '\0' .. ARGV[3])
end
local known = redis.call('HGET', places, place)
if ARGV[4] ~= '' and known ~= ARGV[4] then
  return ''
end
local lost = tonumber(ARGV[6])
if known then
  local letter = redis.call('XRANGE', dead, known, known)[1]
  for j = 1, letter and #letter[2] or 0, 2 do
    if letter[2][j] == 'lost' then
      lost = lost - tonumber(letter[2][j + 1])
    end
  end
  redis.call('XDEL', dead, known)
else
  add(counts, group, 1)
  if session ~= '' then
    add(held, session, 1)
  end
end
if lost ~= 0 then
  add(counts, 'lost/' .. group, lost)
end
local id = redis.call('XADD', dead, '*', unpack(ARGV, 7))
redis.call('HSET', places, place, id)
return id
