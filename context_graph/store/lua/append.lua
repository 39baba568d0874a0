-- Append a batch of events of one partition to its ledger: each once, all in one step.
--
-- KEYS: 1 ledger stream, 2 ids hash, 3 vault hash, 4.. one session list per distinct session of the batch
-- ARGV: 1 partition name for the wake-up, 2 wake-up channel, then per event four values:
--       event id, content hash (16 bytes), index into KEYS of its session list, body
-- Returns per event two values: 'created', 'duplicate' or 'conflict', and the stream id of the event of that id;
-- or 'erased' and '0-0' when a key that a new event is sealed with was destroyed: in one step with the append, so that
-- no entry of an erased subject can follow its erasure.
--
-- The ids hash holds: content hash (16 bytes) .. stream id. It decides, for as long as the event exists.
local ledger, ids, vault = KEYS[1], KEYS[2], KEYS[3]

-- Whether every key that a body is sealed with exists (an unsealed body needs none; see store/sealing.py). Events of a
-- batch share their subjects, so what was found for one is kept for the next.
local known_tags = {}
local function readable(body)
  if string.sub(body, 1, 13) ~= '{"subjects":"' then
    return true
  end
  local tags = string.sub(body, 14, string.find(body, '"', 14, true) - 1)
  local found = known_tags[tags]
  if found == nil then
    found = true
    for tag in string.gmatch(tags, '%S+') do
      found = found and redis.call('HEXISTS', vault, tag) == 1
    end
    known_tags[tags] = found
  end
  return found
end

local out, created = {}, 0
for i = 3, #ARGV, 4 do
  local known = redis.call('HGET', ids, ARGV[i])
  if known then
    out[#out + 1] = (string.sub(known, 1, 16) == ARGV[i + 1]) and 'duplicate' or 'conflict'
    out[#out + 1] = string.sub(known, 17)
  elseif not readable(ARGV[i + 3]) then
    out[#out + 1] = 'erased'
    out[#out + 1] = '0-0'
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
