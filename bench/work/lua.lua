-- SPDX-License-Identifier: MIT
-- Work for lua: tables, strings and closures that live for a short while, and a tree that stays.
math.randomseed(1)

local function tree(depth)
  if depth == 0 then return {} end
  return {left = tree(depth - 1), right = tree(depth - 1), name = "node" .. depth}
end

local staying = tree(15)
local words, sum = {}, 0
for i = 1, 400000 do
  local word = string.rep(string.char(97 + math.random(0, 25)), math.random(1, 60)) .. i
  words[math.random(1, 20000)] = {word = word, upper = function() return word:upper() end}
end
for round = 1, 24 do
  local parts = {}
  for i, entry in pairs(words) do
    if i % 3 == round % 3 then parts[#parts + 1] = entry.upper():sub(1, 20) .. "," .. i end
  end
  table.sort(parts)
  sum = sum + #table.concat(parts, ";")
  tree(12)
end
print(sum, staying.left.name)
