-- What the models said of documents, and what the rules made of that: one answer for many.
--
-- KEYS: for each document its vector's hash and its event's
-- ARGV: 1 number of fields of a vector's hash, then these, then the fields of an event's hash
-- Returns for each document the values of both, in that order; of a key of another type, nothing.
local first = tonumber(ARGV[1])

local function read(values, key, from, to)
  local answer = redis.pcall('HMGET', key, unpack(ARGV, from, to))
  for number = 1, to - from + 1 do
    values[#values + 1] = not answer.err and answer[number] or false
  end
end

local found = {}
for number = 1, #KEYS, 2 do
  local values = {}
  read(values, KEYS[number], 2, 1 + first)
  read(values, KEYS[number + 1], 2 + first, #ARGV)
  found[#found + 1] = values
end
return found
