-- Take an event from timelines and from its causes, what it cited of them, and Stage 1's fields from its node, in one
-- step: Stage 1 writes the node behind all of these, so a node that is not there leaves nothing to take, whoever writes
-- at the same time.
--
-- KEYS: 1 event, 2 set of events with feedback, then timelines, then feedback on what it cited
-- ARGV: 1 member of the timelines, 2 how many it cited, then these, then fields of the node, the first is always there
local member, cited = ARGV[1], tonumber(ARGV[2])
local first_cited = #KEYS - cited + 1
if redis.call('HEXISTS', KEYS[1], ARGV[3 + cited]) == 0 then
  return 0
end
for i = 3, first_cited - 1 do
  redis.call('ZREM', KEYS[i], member)
end
for i = first_cited, #KEYS do
  if redis.call('HDEL', KEYS[i], 'at:' .. member) == 1 then
    redis.call('HDEL', KEYS[i], 'of:' .. string.sub(member, 18))
    redis.call('HINCRBY', KEYS[i], 'uses', -1)
    if redis.call('HLEN', KEYS[i]) == 1 then  -- `uses` alone
      redis.call('DEL', KEYS[i])
      redis.call('ZREM', KEYS[2], ARGV[3 + i - first_cited])
    end
  end
end
redis.call('HDEL', KEYS[1], unpack(ARGV, 3 + cited))
return 1
