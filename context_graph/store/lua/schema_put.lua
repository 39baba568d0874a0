-- Store a schema once: a version that is there stays as it is.
--
-- KEYS: 1 the tenant's registry
-- ARGV: 1 field (event type @ version), 2 the schema as canonical JSON, 3 most schemas a tenant may have
-- Returns 'created', 'same', 'conflict' or 'full'.
local known = redis.call('HGET', KEYS[1], ARGV[1])
if known then
  return known == ARGV[2] and 'same' or 'conflict'
end
-- Two fields are no schema: mode and revision.
if redis.call('HLEN', KEYS[1]) >= tonumber(ARGV[3]) + 2 then
  return 'full'
end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
redis.call('HINCRBY', KEYS[1], 'revision', 1)
return 'created'
