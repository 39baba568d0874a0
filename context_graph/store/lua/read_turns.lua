-- Documents with their places in their sessions, and what stands at given places: what ranking in context needs, in one
-- round trip. The whole neighbourhood is on one hash tag, so that keys may be made here.
--
-- KEYS: 1 the prefix of document hashes, 2 of first vectors' hashes, 3 of sessions' timelines, 4 of event hashes
--       (prefixes, not keys: which documents stand at a place is known only here), 5 of effects, 6 of feedback;
--       7 the set of events with any feedback
-- ARGV: 1 whether entities are wanted ('1'), 2 causes and effects of all ('1') or of tools' calls and results alone,
--       3 opinions, 4-8 the fields that hold text, speaker, description, version (the position's sort key) and, of the
--       vector's hash, entities; 9 most effects of one event, 10 most other halves, 11 number of ids, 12 number of known
--       ids; then the ids, the known ones, and pairs of session and place (0 = first)
-- Returns two lists: for each id and then for each place that is taken
--       {id, text, speaker, meta, entities, place or -1, turns of the session, causes, effects as timeline members,
--        how much oftener it was said to have helped than not}
--       and the same of the results of calls and the calls of results in the first list that are neither there nor known
local doc_prefix, vec_prefix, timelines, events, effects, feedback, opined = unpack(KEYS)
local entities, linked = ARGV[1] == '1', ARGV[2] == '1'
local opinions = ARGV[3] == '1' and redis.call('EXISTS', opined) == 1
local most_effects, most_halves = tonumber(ARGV[9]) - 1, tonumber(ARGV[10])
local first_known = 13 + tonumber(ARGV[11])
local first_place = first_known + tonumber(ARGV[12])
local lengths, seen, halves = {}, {}, {}
local call = redis.call

local function length_of(session)
  if not lengths[session] then
    lengths[session] = call('ZCARD', timelines .. session)
  end
  return lengths[session]
end

-- Of an event its type and session, of what cites others nothing. An array of eleven is read whole only where its fourth
-- value has escapes.
local function type_and_session(meta)
  local kind, session = string.match(meta, '^%[null,"[^"]*","([^"]*)","([^"\\]*)",')
  if kind then return kind, session end
  local values = cjson.decode(meta)
  if values[1] ~= cjson.null then return nil end
  return values[3], values[4]
end

local function note_halves(kind, causes, after)
  if kind == 'tool.call' then
    for _, member in ipairs(after) do
      halves[#halves + 1] = string.sub(member, 18)  -- behind the position's sort key
    end
  elseif causes then
    for _, cause in ipairs(cjson.decode(causes)) do
      halves[#halves + 1] = cause
    end
  end
end

local function add(rows, id, session, place)
  local doc = call('HMGET', doc_prefix .. id, ARGV[4], ARGV[5], ARGV[6], ARGV[7])
  if not doc[3] then return end
  seen[id] = true
  local kind, home = type_and_session(doc[3])
  if home and not session then
    session = home
    place = call('ZRANK', timelines .. session, doc[4] .. id) or false
  end
  local causes, after = false, false
  local tool = kind == 'tool.call' or kind == 'tool.result'
  if linked or tool then
    causes = call('HGET', events .. id, 'causes')
    after = call('ZRANGE', effects .. id, 0, most_effects)
    if tool and most_halves > 0 then note_halves(kind, causes, after) end
  end
  rows[#rows + 1] = {
    id, doc[1], doc[2], doc[3], entities and call('HGET', vec_prefix .. id, ARGV[8]) or false, place or -1,
    place and length_of(session) or 0, causes, after, opinions and call('HGET', feedback .. id, 'uses') or false
  }
end

local found, others = {}, {}
for index = 13, first_known - 1 do
  add(found, ARGV[index], nil, nil)
end
for index = first_known, first_place - 1 do
  seen[ARGV[index]] = true
end
for index = first_place, #ARGV, 2 do
  local place = tonumber(ARGV[index + 1])
  local member = call('ZRANGE', timelines .. ARGV[index], place, place)[1]
  if member then
    local id = string.sub(member, 18)
    if not seen[id] then add(found, id, ARGV[index], place) end
  end
end
for index = 1, math.min(#halves, most_halves) do
  if not seen[halves[index]] then add(others, halves[index], nil, nil) end
end
return {found, others}
