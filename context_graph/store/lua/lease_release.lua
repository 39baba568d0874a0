-- Give a lease back, if it is still this holder's.
--
-- KEYS: 1 lease string
-- ARGV: 1 token .. ':' .. holder
-- Returns 1, or 0 when it has expired or is somebody else's.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return 0
end
return redis.call('DEL', KEYS[1])
