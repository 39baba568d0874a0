-- Put entries of the archive back where they were: stream, ids and session lists in one step.
--
-- KEYS: 1 ledger stream, 2 ids hash, 3.. the session lists of the batch
-- ARGV: per entry: stream id, event id, content hash (16 bytes or empty), index into KEYS of its session list (0: none),
--       number of field names and values, then these
-- Returns {'restored', entries added} or {'other', stream id, entries added} at the first entry in whose place the
-- stream holds something else. What was there already with the same content is left as it is.
local ledger, ids = KEYS[1], KEYS[2]

local function parts(id)
  local ms, seq = string.match(id, '^(%d+)-(%d+)$')
  return tonumber(ms), tonumber(seq)
end

local newest = redis.call('XREVRANGE', ledger, '+', '-', 'COUNT', 1)
local top_ms, top_seq = 0, 0
if #newest > 0 then
  top_ms, top_seq = parts(newest[1][1])
end

local added, i = 0, 1
while i <= #ARGV do
  local id, event, hash, list, count = ARGV[i], ARGV[i + 1], ARGV[i + 2], tonumber(ARGV[i + 3]), tonumber(ARGV[i + 4])
  local ms, seq = parts(id)
  if ms > top_ms or (ms == top_ms and seq > top_seq) then
    redis.call('XADD', ledger, id, unpack(ARGV, i + 5, i + 4 + count))
    if hash ~= '' then
      redis.call('HSET', ids, event, hash .. id)
    end
    if list > 0 then
      redis.call('RPUSH', KEYS[list], id)
    end
    added = added + 1
  else
    local there = redis.call('XRANGE', ledger, id, id)
    if #there == 0 or #there[1][2] ~= count then
      return {'other', id, added}
    end
    for j = 1, count do
      if there[1][2][j] ~= ARGV[i + 4 + j] then
        return {'other', id, added}
      end
    end
  end
  i = i + 5 + count
end
return {'restored', added}
