-- Documents with their places in their sessions, and what stands at given places: what ranking in context needs, in one
-- round trip. The whole neighbourhood is on one hash tag, so that keys may be made here.
--
-- KEYS: 1 the prefix of document hashes, 2 of first vectors' hashes, 3 of sessions' timelines, 4 of event hashes
--       (prefixes, not keys: which documents stand at a place is known only here), 5 of effects
-- ARGV: 1 whether entities are wanted ('1'), 2-6 the fields that hold text, speaker, description, version (the position's
--       sort key) and, of the vector's hash, entities; 7 most effects of one event, 8 number of ids, then these ids, then
--       pairs of session and place (0 = first)
-- Returns for each id and then for each place that is taken:
--       {id, text, speaker, meta, entities, place or -1, turns of the session, causes, effects as timeline members}
local doc_prefix, vec_prefix, timelines, events, effects = unpack(KEYS)
local entities = ARGV[1] == '1'
local count = tonumber(ARGV[8])
local lengths, seen, found = {}, {}, {}

local function length_of(session)
  if not lengths[session] then
    lengths[session] = redis.call('ZCARD', timelines .. session)
  end
  return lengths[session]
end

local function add(id, session, place)
  local doc = redis.call('HMGET', doc_prefix .. id, ARGV[2], ARGV[3], ARGV[4], ARGV[5])
  if not doc[3] then return end
  if not session then
    local meta = cjson.decode(doc[3])
    session = meta[4]
    place = meta[1] == cjson.null and  -- what cites others is no event
      redis.call('ZRANK', timelines .. session, doc[4] .. id) or false
  end
  seen[id] = true
  local tags = entities and redis.call('HGET', vec_prefix .. id, ARGV[6]) or false
  local causes = redis.call('HGET', events .. id, 'causes')
  local after = redis.call('ZRANGE', effects .. id, 0, tonumber(ARGV[7]) - 1)
  found[#found + 1] = {
    id, doc[1], doc[2], doc[3], tags, place or -1, place and length_of(session) or 0, causes, after
  }
end

for index = 9, 8 + count do
  add(ARGV[index], nil, nil)
end
for index = 9 + count, #ARGV, 2 do
  local place = tonumber(ARGV[index + 1])
  local member = redis.call('ZRANGE', timelines .. ARGV[index], place, place)[1]
  if member then
    local id = string.sub(member, 18)  -- behind the position's sort key
    if not seen[id] then add(id, ARGV[index], place) end
  end
end
return found
