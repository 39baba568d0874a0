-- What the models said of documents, and what the rules made of that: one answer for many.
--
-- KEYS: for each document its vector's hash and its event's
-- ARGV: 1 number of fields of a vector's hash, then these, then the fields of an event's hash
-- Returns for each document the values of both, in that order.
local first = tonumber(ARGV[1])
local found = {}
for number = 1, #KEYS, 2 do
  local values = redis.call('HMGET', KEYS[number], unpack(ARGV, 2, 1 + first))
  for _, value in ipairs(redis.call('HMGET', KEYS[number + 1], unpack(ARGV, 2 + first))) do
    values[#values + 1] = value
  end
  found[#found + 1] = values
end
return found
