// SPDX-License-Identifier: MIT
#include "heat_map.h"

#include <algorithm>
#include <array>

#include "metrics.h"

namespace ashlar::frag {

namespace {

constexpr std::size_t kUses = static_cast<std::size_t>(PageUse::unusable) + 1;

std::uint8_t share(std::uint64_t part, std::uint64_t whole) {
  return whole == 0 ? 0 : static_cast<std::uint8_t>((part * 255 + whole / 2) / whole);
}

}  // namespace

HeatMap heat_map(const Snapshot& snapshot, std::size_t most_cells) {
  HeatMap map;
  while (snapshot.pages.size() > most_cells * map.group) map.group *= 2;
  const std::vector<std::uint16_t> occupancy = page_occupancy(snapshot);
  std::vector<std::uint8_t> class_of(snapshot.pages.size(), Cell::kNoClass);
  for (const Slab& slab : snapshot.slabs) {
    const std::uint32_t pages = snapshot.shape(slab).pages();
    std::fill_n(class_of.begin() + slab.first_page, pages,
                static_cast<std::uint8_t>(slab.size_class));
  }
  for (std::size_t first = 0; first < snapshot.pages.size(); first += map.group) {
    const std::size_t end = std::min<std::size_t>(first + map.group, snapshot.pages.size());
    std::array<std::uint32_t, kUses> uses{};
    std::uint64_t resident = 0, huge = 0, swapped = 0, used = 0, used_resident = 0;
    for (std::size_t i = first; i < end; i++) {
      const Page page = snapshot.pages[i];
      uses[static_cast<std::size_t>(page.use)]++;
      resident += page.resident;
      huge += page.huge;
      swapped += page.swapped;
      used += occupancy[i];
      used_resident += page.resident ? occupancy[i] : 0;
    }
    Cell cell;
    cell.use = static_cast<std::uint8_t>(std::ranges::max_element(uses) - uses.begin());
    const bool one_class = std::all_of(class_of.begin() + static_cast<std::ptrdiff_t>(first),
                                       class_of.begin() + static_cast<std::ptrdiff_t>(end),
                                       [&](std::uint8_t c) { return c == class_of[first]; });
    cell.size_class = one_class ? class_of[first] : Cell::kNoClass;
    cell.occupancy = resident != 0 ? share(used_resident, resident * kPageBytes)
                                   : share(used, (end - first) * kPageBytes);
    cell.resident = share(resident, end - first);
    cell.huge = share(huge, end - first);
    cell.swapped = share(swapped, end - first);
    map.cells.push_back(cell);
  }
  return map;
}

}  // namespace ashlar::frag
