-- Take an event from timelines and from its causes, and Stage 1's fields from its node, in one step: Stage 1 writes the
-- node behind all of these, so a node that is not there leaves nothing to take, whoever writes at the same time.
--
-- KEYS: 1 event, then timelines   ARGV: 1 member of the timelines, then fields of the node, the first is always there
if redis.call('HEXISTS', KEYS[1], ARGV[2]) == 0 then
  return 0
end
for i = 2, #KEYS do
  redis.call('ZREM', KEYS[i], ARGV[1])
end
redis.call('HDEL', KEYS[1], unpack(ARGV, 2))
return 1
