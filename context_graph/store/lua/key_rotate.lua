-- Replace a service key by a new one, unless the old one has changed or was revoked meanwhile.
--
-- KEYS: 1 hash of keys
-- ARGV: 1 old digest, 2 the old record as it was read, 3 the old record with its new end (empty: ends now),
--       4 that end in ms, 5 new digest, 6 new record, 7 end of the new one in ms (empty: none)
-- Returns 1, or 0 when nothing was changed.
if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] then
  return 0
end
redis.call('HSET', KEYS[1], ARGV[5], ARGV[6])
if ARGV[7] ~= '' then
  redis.call('HPEXPIREAT', KEYS[1], ARGV[7], 'FIELDS', 1, ARGV[5])
end
if ARGV[3] == '' then
  redis.call('HDEL', KEYS[1], ARGV[1])
else
  redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
  redis.call('HPEXPIREAT', KEYS[1], ARGV[4], 'FIELDS', 1, ARGV[1])
end
return 1
