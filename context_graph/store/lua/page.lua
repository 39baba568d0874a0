-- A stretch of a sorted set behind a place, in one step: what is written meanwhile moves ranks, not pages.
-- KEYS: 1 sorted set   ARGV: 1 asc or desc, 2 score ('' = from the end asked), 3 member, 4 limit
-- The place is the last entry of the page before, or where it stood when it has gone since.
local descending = ARGV[1] == 'desc'
local function before(left, right) -- by bytes, as sorted sets have it; the operator of Lua goes by the locale
  for i = 1, math.min(#left, #right) do
    local a, b = string.byte(left, i), string.byte(right, i)
    if a ~= b then return a < b end
  end
  return #left < #right
end
local start = 0
if ARGV[2] ~= '' then
  local rank = redis.call(descending and 'ZREVRANK' or 'ZRANK', KEYS[1], ARGV[3])
  local score = rank and redis.call('ZSCORE', KEYS[1], ARGV[3])
  if rank and tonumber(score) == tonumber(ARGV[2]) then
    start = rank + 1
  else
    if descending then
      start = redis.call('ZCOUNT', KEYS[1], '(' .. ARGV[2], '+inf')
    else
      start = redis.call('ZCOUNT', KEYS[1], '-inf', '(' .. ARGV[2])
    end
    local ties = redis.call('ZCOUNT', KEYS[1], ARGV[2], ARGV[2])
    local low, high = start, start + ties -- bisect the entries of equal score, which are in the order of bytes
    while low < high do
      local middle = math.floor((low + high) / 2)
      local found = redis.call(descending and 'ZREVRANGE' or 'ZRANGE', KEYS[1], middle, middle)[1]
      local behind
      if descending then behind = before(found, ARGV[3]) else behind = before(ARGV[3], found) end
      if behind then high = middle else low = middle + 1 end
    end
    start = low
  end
end
return redis.call(descending and 'ZREVRANGE' or 'ZRANGE', KEYS[1], start, start + tonumber(ARGV[4]) - 1, 'WITHSCORES')
