-- Take an event from an entity's timeline; an entity that no event mentions any more goes, its names too.
--
-- In one step, so that a mention written meanwhile is either seen here or written behind it.
-- KEYS: 1 timeline, 2 registry, 3 node, 4 names   ARGV: 1 entity id, 2 member of the timeline, 3.. members of names
redis.call('ZREM', KEYS[1], ARGV[2])
local last = redis.call('ZREVRANGE', KEYS[1], 0, 0, 'WITHSCORES')
if #last == 0 then
  redis.call('ZREM', KEYS[2], ARGV[1])
  redis.call('DEL', KEYS[3])
  redis.call('ZREM', KEYS[4], unpack(ARGV, 3))
  return 1
end
redis.call('ZADD', KEYS[2], last[2], ARGV[1])
return 0
