-- Deliver new entries to a consumer; what was trimmed before the group had read it is written down in the same step.
--
-- Redis hands a group that lies behind a trim the first entry there is, as if nothing had been before it. Here the
-- place where it stood, and up to where the stream was cut, go into `gaps` before its place moves.
--
-- KEYS: 1 ledger stream, 2 the group's gaps (hash: last id that is gone -> JSON), 3 the partition's archived hash
-- ARGV: 1 group, 2 consumer, 3 count, 4 whether what is gone must come first: nothing is read then when it is noted
-- Returns what XREADGROUP returns for the stream: entries, or an empty array. Raises NOGROUP.
local ledger, gaps = KEYS[1], KEYS[2]

local function facts(flat)
  local named = {}
  for i = 1, #flat, 2 do
    named[flat[i]] = flat[i + 1]
  end
  return named
end

local function parts(id)
  local ms, seq = string.match(id, '^(%d+)-(%d+)$')
  return tonumber(ms), tonumber(seq)
end

local function before(a, b)
  local a_ms, a_seq = parts(a)
  local b_ms, b_seq = parts(b)
  return a_ms < b_ms or (a_ms == b_ms and a_seq < b_seq)
end

local function ahead_of(id)
  local dash = string.find(id, '-')
  local ms, seq = string.sub(id, 1, dash - 1), string.sub(id, dash + 1)
  if seq == '0' then
    return string.format('%d', tonumber(ms) - 1) .. '-999999999999999999'
  end
  return ms .. '-' .. string.format('%d', tonumber(seq) - 1)
end

if redis.call('EXISTS', ledger) == 0 then
  return redis.error_reply('NOGROUP there is no stream')
end
local mine
for _, group in ipairs(redis.call('XINFO', 'GROUPS', ledger)) do
  local known = facts(group)
  if known['name'] == ARGV[1] then
    mine = known
  end
end
if not mine then
  return redis.error_reply('NOGROUP there is no such group')
end

local stream = facts(redis.call('XINFO', 'STREAM', ledger))
local gone = stream['entries-added'] - stream['length']
if gone > 0 then
  local last, read = mine['last-delivered-id'], mine['entries-read']
  local cut = stream['last-generated-id']
  if stream['length'] > 0 then
    cut = ahead_of(stream['first-entry'][1])
  end
  local expected = gone
  if read then
    expected = math.max(gone - read, 0)
  elseif last ~= '0-0' then
    -- How much the group has read is unknown: it has missed nothing when the archiver, who waits for it, made the cut.
    local trimmed = redis.call('HGET', KEYS[3], 'trimmed')
    expected = (trimmed and not before(last, trimmed)) and 0 or -1
  end
  if expected ~= 0 and before(last, cut) then
    redis.call('HSETNX', gaps, cut, cjson.encode({after = last, expected = expected, found = 0, problem = ''}))
    -- The place moves even when nothing is read: the gap is told once.
    redis.call('XGROUP', 'SETID', ledger, ARGV[1], cut, 'ENTRIESREAD', gone)
    if ARGV[4] == '1' then
      return {}
    end
  end
end

local answer = redis.call('XREADGROUP', 'GROUP', ARGV[1], ARGV[2], 'COUNT', ARGV[3], 'STREAMS', ledger, '>')
if not answer then
  return {}
end
return answer[1][2]
