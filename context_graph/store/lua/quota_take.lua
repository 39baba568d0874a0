-- Take tokens from the buckets of one tenant, all that are needed or none.
--
-- KEYS: 1 hash of the tenant's buckets (per bucket: 'name' tokens, 'name:at' when they were counted, in ms)
-- ARGV: per bucket six values: name, capacity, tokens a second, tokens needed, tokens wanted, tokens given back
-- Returns: ms until it is worth asking again (0: taken, -1: never, more is needed than a bucket holds), the index of
--          the bucket that had too little (0: none), then per bucket the tokens taken (needed <= taken <= wanted).
--
-- What is given back (taken earlier, not used) counts even when nothing is taken. The server's clock is everybody's.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local wait, short, out, lasts = 0, 0, {0, 0}, 1000
local left = {}
for i = 1, #ARGV, 6 do
  local capacity, refill, need = tonumber(ARGV[i + 1]), tonumber(ARGV[i + 2]), tonumber(ARGV[i + 3])
  local known = redis.call('HMGET', KEYS[1], ARGV[i], ARGV[i] .. ':at')
  local tokens = tonumber(known[1]) or capacity
  local passed = math.max(0, now - (tonumber(known[2]) or now))
  tokens = math.min(capacity, tokens + passed * refill / 1000 + tonumber(ARGV[i + 5]))
  left[#left + 1] = tokens
  if need > capacity then
    wait, short = -1, #left
  elseif tokens < need and wait >= 0 then
    local until_enough = math.ceil((need - tokens) * 1000 / refill)
    if until_enough > wait then
      wait, short = until_enough, #left
    end
  end
end
for i = 1, #ARGV, 6 do
  local bucket = (i - 1) / 6 + 1
  local taken = 0
  if wait == 0 then
    taken = math.max(tonumber(ARGV[i + 3]), math.min(tonumber(ARGV[i + 4]), math.floor(left[bucket])))
  end
  out[#out + 1] = taken
  redis.call('HSET', KEYS[1], ARGV[i], string.format('%.6f', left[bucket] - taken), ARGV[i] .. ':at', now)
  lasts = math.max(lasts, tonumber(ARGV[i + 1]) * 1000 / tonumber(ARGV[i + 2]))
end
-- A bucket that nobody touches is full by then, and a full bucket is the same as none.
redis.call('PEXPIRE', KEYS[1], math.ceil(lasts) + 1000)
out[1], out[2] = wait, short
return out
