-- Take an event from the timelines of its entities, and its mentions from its node; an entity that no event mentions any
-- more goes, its names too. Nothing when the mentions are gone already: whoever writes them again writes them last.
--
-- KEYS: 1 event, 2 registry, 3 names, then per entity: its timeline, its node
-- ARGV: 1 field that lists the entities, 2 other field of the mentions, 3 member of the timelines,
--       then per entity: its id, how many members of names it has, these
if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 0 then
  return 0
end
local at = 4
for i = 4, #KEYS, 2 do
  redis.call('ZREM', KEYS[i], ARGV[3])
  local id, count = ARGV[at], tonumber(ARGV[at + 1])
  local last = redis.call('ZREVRANGE', KEYS[i], 0, 0, 'WITHSCORES')
  if #last == 0 then
    redis.call('ZREM', KEYS[2], id)
    redis.call('DEL', KEYS[i + 1])
    for j = at + 2, at + 1 + count do
      redis.call('ZREM', KEYS[3], ARGV[j])
    end
  else
    redis.call('ZADD', KEYS[2], last[2], id)
  end
  at = at + 2 + count
end
redis.call('HDEL', KEYS[1], ARGV[1], ARGV[2])
return 1
