-- Remove a consumer that holds nothing, in one step: XGROUP DELCONSUMER would drop what it holds, acknowledged by nobody.
--
-- KEYS: 1 ledger stream; ARGV: 1 group, 2 consumer. Returns 1 when it was removed.
if redis.call('EXISTS', KEYS[1]) == 0 then
  return 0
end
local known = redis.pcall('XPENDING', KEYS[1], ARGV[1], '-', '+', 1, ARGV[2])
if known.err or #known > 0 then
  return 0
end
redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], ARGV[2])
return 1
