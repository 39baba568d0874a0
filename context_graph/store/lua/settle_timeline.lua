-- After members were taken from a timeline: nobody left means that the thing itself goes, else it was last seen then.
--
-- KEYS: 1 timeline (sorted set), 2 registry (sorted set), 3 node (hash) that goes with an empty timeline
-- ARGV: 1 the thing's name in the registry
-- Returns 1 when the thing is gone, else 0.
local last = redis.call('ZREVRANGE', KEYS[1], 0, 0, 'WITHSCORES')
if #last == 0 then
  redis.call('ZREM', KEYS[2], ARGV[1])
  redis.call('DEL', KEYS[3])
  return 1
end
redis.call('ZADD', KEYS[2], last[2], ARGV[1])
return 0
