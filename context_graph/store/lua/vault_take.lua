-- The wrapped data keys of subjects, made now where there are none. A key that was destroyed is never made again.
--
-- KEYS: 1 vault hash (tag -> wrapped key), 2 erased hash (tag -> erasure id)
-- ARGV: pairs of a tag and the wrapped key to keep if the subject is new
-- Returns per pair two values: 'key' and the wrapped key in force, or 'erased' and the erasure id.
local out = {}
for i = 1, #ARGV, 2 do
  local erased = redis.call('HGET', KEYS[2], ARGV[i])
  if erased then
    out[#out + 1] = 'erased'
    out[#out + 1] = erased
  else
    redis.call('HSETNX', KEYS[1], ARGV[i], ARGV[i + 1])
    out[#out + 1] = 'key'
    out[#out + 1] = redis.call('HGET', KEYS[1], ARGV[i])
  end
end
return out
