-- Take a lease that nobody holds, and number the holder.
--
-- KEYS: 1 lease string, 2 fence counter
-- ARGV: 1 holder, 2 time to live in ms
-- Returns the fencing token (1, 2, ...), or nil when somebody holds the lease.
--
-- The lease's value is token .. ':' .. holder, so a holder that lost it and got it again is another holder.
if redis.call('EXISTS', KEYS[1]) == 1 then
  return nil
end
local fence = redis.call('INCR', KEYS[2])
redis.call('SET', KEYS[1], fence .. ':' .. ARGV[1], 'PX', ARGV[2])
return fence
