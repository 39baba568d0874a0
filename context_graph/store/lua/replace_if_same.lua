-- Replace a string if it still is what it was read as: two that change it at once cannot undo each other.
-- KEYS: 1 string   ARGV: 1 what it was ("" for absent), 2 what it becomes
-- Returns 1 when it was replaced, 0 when somebody else was first.
local known = redis.call('GET', KEYS[1]) or ''
if known ~= ARGV[1] then
  return 0
end
redis.call('SET', KEYS[1], ARGV[2])
return 1
