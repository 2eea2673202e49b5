// SPDX-License-Identifier: MIT
// heat_map: every page of an arena as a cell, or some pages together when there are too many.
//
// Threads: pure functions.
#pragma once

#include <cstdint>
#include <vector>

#include "snapshot.h"

namespace ashlar::frag {

// Shares are in 1/255.
struct Cell {
  std::uint8_t use = 0;         // PageUse of most of its pages
  std::uint8_t size_class = 0;  // of its slabs; kNoClass: none, or several
  std::uint8_t occupancy = 0;   // bytes in use of its resident pages; of all, if none is
  std::uint8_t resident = 0;
  std::uint8_t huge = 0;
  std::uint8_t swapped = 0;

  static constexpr std::uint8_t kNoClass = 255;
};

struct HeatMap {
  std::uint32_t group = 1;  // pages in a cell: a power of two
  std::vector<Cell> cells;
};

// At most `most_cells` cells, as few pages in each as that allows.
HeatMap heat_map(const Snapshot& snapshot, std::size_t most_cells);

}  // namespace ashlar::frag
