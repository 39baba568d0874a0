-- How much oftener each event was said to have helped than not: hundreds of them in one command.
--
-- KEYS: 1 the prefix of feedback hashes
-- ARGV: event ids
-- Returns the count of each, '0' where nobody has an opinion
local uses = {}
for index, id in ipairs(ARGV) do
  uses[index] = redis.call('HGET', KEYS[1] .. id, 'uses') or '0'
end
return uses
