-- Append a batch of events of one partition to its ledger: each once, all in one step.
--
-- KEYS: 1 ledger stream, 2 ids hash, 3.. one session list per distinct session of the batch
-- ARGV: 1 partition name for the wake-up, 2 wake-up channel, then per event four values:
--       event id, content hash (16 bytes), index into KEYS of its session list, body
-- Returns per event two values: 'created', 'duplicate' or 'conflict', and the stream id of the event of that id.
--
-- The ids hash holds: content hash (16 bytes) .. stream id. It decides, for as long as the event exists.
local ledger, ids = KEYS[1], KEYS[2]
local out, created = {}, 0
for i = 3, #ARGV, 4 do
  local known = redis.call('HGET', ids, ARGV[i])
  if known then
    out[#out + 1] = (string.sub(known, 1, 16) == ARGV[i + 1]) and 'duplicate' or 'conflict'
    out[#out + 1] = string.sub(known, 17)
  else
    local id = redis.call('XADD', ledger, '*', 'e', ARGV[i + 3])
    redis.call('HSET', ids, ARGV[i], ARGV[i + 1] .. id)
    redis.call('RPUSH', KEYS[tonumber(ARGV[i + 2])], id)
    out[#out + 1] = 'created'
    out[#out + 1] = id
    created = created + 1
  end
end
if created > 0 then
  redis.call('PUBLISH', ARGV[2], ARGV[1])
end
return out
