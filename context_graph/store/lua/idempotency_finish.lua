-- Put a finished request's answer where its mark is, or take the mark away, if it is still this request's own.
--
-- KEYS: 1 the key of the Idempotency-Key
-- ARGV: 1 the mark as it was set, 2 the answer ('' = none: the next try runs again), 3 lifetime of the answer, ms
-- Returns 1 when it was, 0 when the mark had expired or is another's.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return 0
end
if ARGV[2] == '' then
  redis.call('DEL', KEYS[1])
else
  redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
end
return 1
