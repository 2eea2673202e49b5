// SPDX-License-Identifier: MIT
// FirstFit: a packer; each object goes to the lowest gap of 16-byte grains that it fits into.
//
// Source:  Johnstone and Wilson (ISMM 1998) found first fit in the order of addresses, with best
// fit,
//          to waste least.
// How:     a bit per grain, and a tree over the pages that knows the longest gap below each node,
// and
//          the gaps at its two ends: 21 steps, for 8 GiB of addresses.
// Threads: any.
#pragma once

#include <array>
#include <cstdint>
#include <mutex>

#include "packer.h"

namespace ashlar::bench::frag {

class FirstFit final : public Packer {
 public:
  FirstFit();

  unsigned char* take(std::size_t bytes) override;
  void give(unsigned char* object, std::size_t bytes) override;
  std::size_t held() const override;

 private:
  static constexpr std::uint32_t kGrains = kPage / kGrain;  // in a page
  static constexpr std::uint32_t kPages = 1 << 21;          // a power of two

  // Lengths of gaps, in grains: at both ends, and of the longest.
  struct Gaps {
    std::uint32_t first, last, longest;
  };
  using Words = std::array<std::uint64_t, kGrains / 64>;  // bit: the grain is in an object

  static Gaps gaps_of(const Words& page);
  static Gaps joined(const Gaps& left, const Gaps& right, std::uint32_t half);
  std::size_t find(std::uint32_t grains) const;
  std::size_t find_in_page(std::size_t page, std::uint32_t grains) const;
  void flip(std::size_t first, std::size_t grains);

  Words* used_;  // kPages
  Gaps* tree_;   // node n has 2n and 2n + 1; pages are kPages … 2 kPages − 1
  std::size_t pages_held_ = 0;
  mutable std::mutex mutex_;  // of all of it
};

}  // namespace ashlar::bench::frag
