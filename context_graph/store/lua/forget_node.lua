-- Take an event from timelines and from its causes, what it cited of them, and Stage 1's fields from its node, in one
-- step: Stage 1 writes the node behind all of these, so a node that is not there leaves nothing to take, whoever writes
-- at the same time.
--
-- KEYS: 1 event, then timelines, then feedback on what it cited
-- ARGV: 1 member of the timelines, 2 how many it cited, then fields of the node, the first is always there
local member, first_cited = ARGV[1], #KEYS - tonumber(ARGV[2]) + 1
if redis.call('HEXISTS', KEYS[1], ARGV[3]) == 0 then
  return 0
end
for i = 2, first_cited - 1 do
  redis.call('ZREM', KEYS[i], member)
end
for i = first_cited, #KEYS do
  if redis.call('HDEL', KEYS[i], 'at:' .. member) == 1 then
    redis.call('HDEL', KEYS[i], 'of:' .. string.sub(member, 18))
    redis.call('HINCRBY', KEYS[i], 'uses', -1)
    if redis.call('HLEN', KEYS[i]) == 1 then redis.call('DEL', KEYS[i]) end  -- `uses` alone
  end
end
redis.call('HDEL', KEYS[1], unpack(ARGV, 3))
return 1
