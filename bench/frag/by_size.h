// SPDX-License-Identifier: MIT
// BySize: a packer; a page has objects of one size, and the lowest page with room is taken first.
// Objects of more than half a page go where FirstFit puts them, among themselves.
//
// Source:  segregated storage (Wilson et al., Dynamic Storage Allocation, IWMM 1995), at its best.
// Threads: any.
#pragma once

#include <array>
#include <bitset>
#include <cstdint>
#include <mutex>
#include <set>
#include <vector>

#include "first_fit.h"

namespace ashlar::bench::frag {

class BySize final : public Packer {
 public:
  unsigned char* take(std::size_t bytes) override;
  void give(unsigned char* object, std::size_t bytes) override;
  std::size_t held() const override;

 private:
  static constexpr std::size_t kMostShared = kPage / 2;
  static constexpr std::size_t kMostObjects = kPage / kGrain;  // on a page

  using Pages = std::set<std::uint32_t>;
  struct Page {
    std::bitset<kMostObjects> used;  // by objects, from the page's beginning
  };

  std::uint32_t page_with_room(Pages& of_size);

  std::vector<Page> pages_;
  Pages empty_;                                            // of pages_
  std::array<Pages, kMostShared / kGrain + 1> with_room_;  // by size in grains
  mutable std::mutex mutex_;                               // of the three above
  FirstFit large_;
};

}  // namespace ashlar::bench::frag
