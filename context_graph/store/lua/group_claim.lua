-- Take over pending entries without counting a delivery: it is counted when they are handled.
--
-- XCLAIM drops an entry that the stream does not hold any more from the pending list, silently; so these are not
-- claimed here but told, and stay pending until somebody has found them elsewhere.
--
-- KEYS: 1 ledger stream
-- ARGV: 1 group, 2 consumer, 3 idle ms, then stream ids
-- Returns {claimed entries as XRANGE tells them, ids that are gone}
local found, gone = {}, {}
for i = 4, #ARGV do
  local entry = redis.call('XRANGE', KEYS[1], ARGV[i], ARGV[i])
  if #entry == 0 then
    if #redis.call('XPENDING', KEYS[1], ARGV[1], ARGV[i], ARGV[i], 1) > 0 then
      gone[#gone + 1] = ARGV[i]
    end
  elseif #redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[2], ARGV[3], ARGV[i], 'JUSTID') > 0 then
    found[#found + 1] = entry[1]
  end
end
return {found, gone}
