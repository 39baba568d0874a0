-- Take entries that are to be delivered once more, for a bounded time: whoever dies with them loses them to the next.
--
-- KEYS: 1 again (zset: sort key -> ms from when on it may be taken), 2 tries (hash), 3 places of dead letters (hash)
-- ARGV: 1 group, 2 ms for which they are the taker's, 3 count, 4 the most that were tried before to take
-- Returns flat: sort key, number of this delivery, id of its dead letter or ''. Those tried before come one at a time.
local now = redis.call('TIME')
local ms = now[1] * 1000 + math.floor(now[2] / 1000)
local due = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', ms, 'LIMIT', 0, ARGV[3])
local taken = {}
local tried = 0
for _, key in ipairs(due) do
  local before = tonumber(redis.call('HGET', KEYS[2], key) or '0')
  if before > 0 then
    tried = tried + 1
  end
  if before == 0 or tried <= tonumber(ARGV[4]) then
    local stream_id = string.format('%d-%d', tonumber(string.sub(key, 1, 11), 16), tonumber(string.sub(key, 12, 17), 16))
    redis.call('ZADD', KEYS[1], ms + ARGV[2], key)
    taken[#taken + 1] = key
    taken[#taken + 1] = redis.call('HINCRBY', KEYS[2], key, 1)
    taken[#taken + 1] = redis.call('HGET', KEYS[3], ARGV[1] .. '/' .. stream_id) or ''
  end
end
return taken
