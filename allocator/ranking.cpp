// SPDX-License-Identifier: MIT
#include "ranking.h"

#include <cstring>

namespace ashlar {

namespace {

// Seven bytes moved for one that is won, at worst.
constexpr Bytes kLeastGaps = kUnitBytes / 8;

}  // namespace

void Ranking::begin() { std::memset(classes_, 0, sizeof classes_); }

void Ranking::count(SlabFill slab, bool takes_moved) {
  if (slab.is_full()) return;
  Level& level = classes_[slab.size_class.v].level[level_of(slab)];
  level.slabs++;
  level.used += slab.used;
  if (takes_moved) level.room += slab.info().capacity - slab.used;
}

void Ranking::choose() {
  for (OfClass& c : classes_) {
    std::uint64_t room = 0;
    for (const Level& level : c.level) room += level.room;
    std::uint64_t moved = 0;
    for (c.end = 0; c.end < kLevels; c.end++) {
      const Level& level = c.level[c.end];
      if (moved + level.used > room - level.room) break;
      moved += level.used;
      room -= level.room;
    }
    if (c.end == kLevels) continue;  // no slab of the class has room, or all are empty
    // Each slab of this level adds its objects and takes its room away.
    const Level& level = c.level[c.end];
    const std::uint64_t emptied = (room - moved) * level.slabs / (level.used + level.room);
    c.stay = level.slabs - (emptied < level.slabs ? emptied : level.slabs);
  }
}

std::uint8_t Ranking::score(SlabFill slab) {
  if (slab.is_full()) return 0;
  OfClass& c = classes_[slab.size_class.v];
  const std::uint32_t level = level_of(slab);
  if (level > c.end) return 0;
  if (level == c.end && c.stay != 0) {
    c.stay--;
    return 0;
  }
  return score_of(slab.used, slab.info().capacity);
}

std::uint8_t Ranking::score_of_mosaic(Bytes gaps) {
  return gaps < kLeastGaps ? 0 : score_of(kUnitBytes - gaps, kUnitBytes);
}

}  // namespace ashlar
