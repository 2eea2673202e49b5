// SPDX-License-Identifier: MIT
// L4 · ranking: which slabs of a size class are to be emptied, and in what order.
//
// What:    the emptiest slabs give the most memory for what must be moved. So many of them are
//          chosen that what is in them fits into the free slots of the others: nothing moves into
//          a slab that is to be emptied itself.
// How:     two walks over the slabs. The first counts slabs, objects and free slots by class and
//          level of fullness; choose() goes up the levels until the room above is used up; the
//          second walk asks for scores. Of the level where that happens, slabs seen later are
//          chosen, so that low addresses stay.
// Mosaics: they have objects of all classes and gaps that fit few of them. One with gaps enough is
//          worth new slabs for what is in it, so it needs no room elsewhere.
// Threads: the caller keeps others out. Slabs may change between the walks; it is advice.
// Position: knows slabs by their fullness alone, so it ranks a shared arena's as well.
#pragma once

#include "size_class.h"

namespace ashlar {

// How full a slab is: all that a ranking asks.
struct SlabFill {
  ClassIndex size_class;
  std::uint32_t used;  // slots

  const SizeClass& info() const { return ashlar::size_class(size_class); }
  bool is_full() const { return used >= info().capacity; }
};

class Ranking {
 public:
  constexpr Ranking() = default;

  void begin();
  // `takes_moved`: free slots of this slab can be had by who moves.
  void count(SlabFill slab, bool takes_moved);
  void choose();
  // 1 to 255: to be emptied, the emptiest first. 0: to stay.
  std::uint8_t score(SlabFill slab);
  // Of a mosaic with so many bytes of gaps.
  static std::uint8_t score_of_mosaic(Bytes gaps);

 private:
  static constexpr std::uint32_t kLevels = 32;

  // Slabs of one class that are about as full.
  struct Level {
    std::uint64_t slabs;
    std::uint64_t used;  // slots
    std::uint64_t room;  // free slots for what is moved
  };
  struct OfClass {
    Level level[kLevels];
    std::uint32_t end;   // levels below are to be emptied
    std::uint64_t stay;  // of that level, slabs that come first and are to stay
  };

  // Of what is in use of a whole.
  static std::uint8_t score_of(std::uint64_t used, std::uint64_t whole) {
    return static_cast<std::uint8_t>(255 - 254 * used / whole);
  }
  static std::uint32_t level_of(SlabFill slab) {
    return static_cast<std::uint32_t>(std::uint64_t{slab.used} * kLevels / slab.info().capacity);
  }

  OfClass classes_[kClassCount] = {};
};

}  // namespace ashlar
