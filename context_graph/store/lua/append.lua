-- Append a batch of events of one partition to its ledger: each once, all in one step.
--
-- KEYS: 1 ledger stream, 2 ids hash, 3 vault hash, 4.. one session list per distinct session of the batch
-- ARGV: 1 partition name for the wake-up, 2 wake-up channel, 3 number of lanes, then per lane two values: index into KEYS
--       of its session list, and the tags whose keys its events are sealed with ('' = none; space between);
--       then per event four values: event id, content hash (16 bytes), its lane, body
-- Returns per event two values: 'created', 'duplicate' or 'conflict', and the stream id of the event of that id;
-- or 'erased' and '0-0' when a key that a new event is sealed with was destroyed: in one step with the append, so that
-- no entry of an erased subject can follow its erasure.
--
-- The ids hash holds: content hash (16 bytes) .. stream id. It decides, for as long as the event exists. Ids and session
-- lists are read and written in one command each: a call from a script costs more than what it does.
local ledger, ids, vault = KEYS[1], KEYS[2], KEYS[3]
local lanes, first = tonumber(ARGV[3]), 4 + 2 * tonumber(ARGV[3])
local MOST = 3000 -- values given to one command: Lua's stack holds some 8,000

local readable, session_ids = {}, {}
for lane = 1, lanes do
  local found = true
  for tag in string.gmatch(ARGV[3 + 2 * lane], '%S+') do
    found = found and redis.call('HEXISTS', vault, tag) == 1
  end
  readable[lane] = found
  session_ids[ARGV[2 + 2 * lane]] = {} -- lanes of one session share its list, whose order is the ledger's
end

local known, wanted, from = {}, {}, first
for i = first, #ARGV, 4 do
  wanted[#wanted + 1] = ARGV[i]
  if #wanted == MOST or i + 4 > #ARGV then
    for _, value in ipairs(redis.call('HMGET', ids, unpack(wanted))) do
      if value then
        known[ARGV[from]] = value
      end
      from = from + 4
    end
    wanted = {}
  end
end

local out, fresh, created = {}, {}, 0
for i = first, #ARGV, 4 do
  local event, lane = ARGV[i], tonumber(ARGV[i + 2])
  local there = known[event]
  if there then
    out[#out + 1] = (string.sub(there, 1, 16) == ARGV[i + 1]) and 'duplicate' or 'conflict'
    out[#out + 1] = string.sub(there, 17)
  elseif not readable[lane] then
    out[#out + 1] = 'erased'
    out[#out + 1] = '0-0'
  else
    local id = redis.call('XADD', ledger, '*', 'e', ARGV[i + 3])
    local value, list = ARGV[i + 1] .. id, session_ids[ARGV[2 + 2 * lane]]
    known[event] = value
    fresh[#fresh + 1] = event
    fresh[#fresh + 1] = value
    list[#list + 1] = id
    out[#out + 1] = 'created'
    out[#out + 1] = id
    created = created + 1
    if #fresh == MOST then
      redis.call('HSET', ids, unpack(fresh))
      fresh = {}
    end
  end
end
if #fresh > 0 then
  redis.call('HSET', ids, unpack(fresh))
end
for key, list in pairs(session_ids) do
  for start = 1, #list, MOST do
    redis.call('RPUSH', KEYS[tonumber(key)], unpack(list, start, math.min(start + MOST - 1, #list)))
  end
end
if created > 0 then
  redis.call('PUBLISH', ARGV[2], ARGV[1])
end
return out
