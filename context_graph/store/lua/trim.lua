-- Cut the beginning of a stream off, behind every consumer group and only for the holder of the lease: one step.
--
-- KEYS: 1 ledger stream, 2 archived hash, 3 lease string
-- ARGV: 1 lease token, 2 last id to cut, 3 the id behind it, then the groups that must exist
-- Returns {'trimmed', entries} or, with nothing changed, {'lease', ''} or {'group', name .. ' ' .. reason}.
local ledger, archived, lease = KEYS[1], KEYS[2], KEYS[3]
local through = ARGV[2]

local function parts(id)
  local ms, seq = string.match(id, '^(%d+)-(%d+)$')
  return tonumber(ms), tonumber(seq)
end

local function before(a, b)
  local a_ms, a_seq = parts(a)
  local b_ms, b_seq = parts(b)
  return a_ms < b_ms or (a_ms == b_ms and a_seq < b_seq)
end

if redis.call('GET', lease) ~= ARGV[1] then
  return {'lease', ''}
end
local started = {}
for _, group in ipairs(redis.call('XINFO', 'GROUPS', ledger)) do
  local facts = {}
  for i = 1, #group, 2 do
    facts[group[i]] = group[i + 1]
  end
  if before(facts['last-delivered-id'], through) then
    return {'group', facts['name'] .. ' has read up to ' .. facts['last-delivered-id']}
  end
  local pending = redis.call('XPENDING', ledger, facts['name'], '-', '+', 1)
  if #pending > 0 and not before(through, pending[1][1]) then
    return {'group', facts['name'] .. ' has not finished ' .. pending[1][1]}
  end
  started[facts['name']] = true
end
for i = 4, #ARGV do
  if not started[ARGV[i]] then
    return {'group', ARGV[i] .. ' has not started'}
  end
end
redis.call('HSET', archived, 'trimmed', through)
return {'trimmed', redis.call('XTRIM', ledger, 'MINID', '=', ARGV[3])}
