-- Opinions on an event. Every one is kept (origin and position -> verdict), of an origin's the newest counts, and the
-- sum of these is `uses`. Writing one twice, or an older one later, changes nothing.
-- KEYS: 1 hash, 2 set of events with any   ARGV: 1 the event, then receipt or citing event, position sort key, verdict ...
local function number(value) return value and tonumber(value) or 0 end
redis.call('ZADD', KEYS[2], 0, ARGV[1])
for i = 2, #ARGV, 3 do
  local receipt, at, verdict = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  redis.call('HSET', KEYS[1], 'at:' .. at .. receipt, verdict)
  local newest = redis.call('HGET', KEYS[1], 'of:' .. receipt)
  if not newest or string.sub(newest, 1, 17) < at then
    local before = newest and number(string.sub(newest, 18)) or 0
    redis.call('HSET', KEYS[1], 'of:' .. receipt, at .. verdict)
    redis.call('HINCRBY', KEYS[1], 'uses', number(verdict) - before)
  end
end
return number(redis.call('HGET', KEYS[1], 'uses'))
