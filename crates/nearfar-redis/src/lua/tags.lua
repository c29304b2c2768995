-- Partition::tag_marks.
-- KEYS: head, tags. ARGV: tags.
-- Returns for each tag the numbers of its last changes: to wrong, to stale.

local head = read_head(KEYS[1])
local since = head and known_since(KEYS[2], head)
local marks = {}
for i, tag in ipairs(ARGV) do
  local wrong, stale = 0, 0
  if head then
    wrong, stale = mark_of(KEYS[2], tag, since)
  end
  marks[2 * i - 1], marks[2 * i] = wrong, stale
end
return marks
