-- Says on which level's stream a message goes, by what it says for workers; by default on that of level 5.
local function level_of(options)
  return options and string.match(options, '"level":(%d)[,}]') or '5'
end
