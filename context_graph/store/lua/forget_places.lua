-- Take events from the timeline of their session. The registry then lists the session by its last event; one that has none
-- left is not listed, and what passes remember of it goes. Stage 1 writes timelines before the registry, so an event that
-- arrives at the same time keeps its session listed.
--
-- KEYS: 1 timeline, 2 registry of sessions, then what goes with the last event   ARGV: 1 session, then members
redis.call('ZREM', KEYS[1], unpack(ARGV, 2))
local last = redis.call('ZREVRANGE', KEYS[1], 0, 0, 'WITHSCORES')
if #last > 0 then
  redis.call('ZADD', KEYS[2], last[2], ARGV[1])
else
  redis.call('ZREM', KEYS[2], ARGV[1])
  redis.call('DEL', unpack(KEYS, 3))
end
return 1
