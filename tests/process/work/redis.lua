-- SPDX-License-Identifier: MIT
-- The number of keys, and one digest over all keys and values.
local out = {}
local keys = redis.call('keys', '*'); table.sort(keys)
for _, key in ipairs(keys) do
  local kind, value = redis.call('type', key).ok
  if kind == 'string' then value = redis.call('get', key)
  elseif kind == 'list' then value = table.concat(redis.call('lrange', key, 0, -1), ',')
  elseif kind == 'zset' then value = table.concat(redis.call('zrange', key, 0, -1, 'withscores'), ',')
  else value = redis.call('hgetall', key); table.sort(value); value = table.concat(value, ',') end
  out[#out + 1] = key .. ' ' .. redis.sha1hex(value)
end
return {#keys, redis.sha1hex(table.concat(out, ';'))}
