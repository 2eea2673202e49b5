// SPDX-License-Identifier: MIT
// What merging pages would save: a simulation of Mesh's SplitMesher (Powers, Tench, Berger,
// McGregor: "Mesh: Compacting Memory Management for C/C++ Applications", PLDI 2019) on runs of
// pages instead of whole slabs.
#include <algorithm>
#include <array>
#include <map>

#include "metrics.h"

namespace ashlar::frag {

namespace {

constexpr std::uint32_t kGrainBytes = 16;  // slots begin and end at multiples of this
constexpr std::uint32_t kWordsPerPage = kPageBytes / kGrainBytes / 64;
constexpr std::uint32_t kMostRunPages = 16;
constexpr std::size_t kProbes = 64;  // Mesh's bound on the tries for each run

// A bit for each 16 bytes of a run: in use.
using Mask = std::array<std::uint64_t, kWordsPerPage * kMostRunPages>;

Mask mask_of(const Snapshot& snapshot, const Slab& slab, std::uint32_t page, std::uint32_t pages) {
  const ClassShape& shape = snapshot.shape(slab);
  const auto begin = static_cast<std::uint32_t>(page * kPageBytes);
  const auto end = static_cast<std::uint32_t>((page + pages) * kPageBytes);
  Mask mask{};
  for (std::uint32_t slot = begin / shape.slot_bytes;
       slot < shape.capacity && slot * shape.slot_bytes < end; slot++) {
    if ((snapshot.taken_bits[slab.words + slot / 64] >> slot % 64 & 1) == 0) continue;
    const std::uint32_t from = std::max(slot * shape.slot_bytes, begin) - begin;
    const std::uint32_t to = std::min((slot + 1) * shape.slot_bytes, end) - begin;
    for (std::uint32_t g = from / kGrainBytes; g < to / kGrainBytes; g++) {
      mask[g / 64] |= std::uint64_t{1} << g % 64;
    }
  }
  return mask;
}

bool are_disjoint(const Mask& a, const Mask& b, std::uint32_t words) {
  for (std::uint32_t w = 0; w < words; w++) {
    if ((a[w] & b[w]) != 0) return false;
  }
  return true;
}

// The left half meets the right half at growing distances; a pair that fits leaves.
std::uint64_t count_pairs(const std::vector<Mask>& runs, std::uint32_t words) {
  const std::size_t half = runs.size() / 2;
  std::vector<bool> gone(runs.size());
  std::uint64_t pairs = 0;
  for (std::size_t probe = 0; probe < std::min(kProbes, half); probe++) {
    for (std::size_t left = 0; left < half; left++) {
      const std::size_t right = half + (left + probe) % half;
      if (gone[left] || gone[right] || !are_disjoint(runs[left], runs[right], words)) continue;
      gone[left] = gone[right] = true;
      pairs++;
    }
  }
  return pairs;
}

// Shuffles in place, the same way each time.
void shuffle(std::vector<Mask>& runs) {
  std::uint64_t state = 1;
  for (std::size_t i = runs.size(); i > 1; i--) {
    state = state * 6364136223846793005 + 1442695040888963407;  // Knuth's MMIX generator
    std::swap(runs[i - 1], runs[(state >> 33) % i]);
  }
}

}  // namespace

std::uint64_t meshable(const Snapshot& snapshot, std::uint32_t run_pages) {
  // Of very large heaps a sample of runs stands for all.
  constexpr std::size_t kMostRuns = 1 << 15;
  run_pages = std::clamp<std::uint32_t>(run_pages, 1, kMostRunPages);
  std::map<std::pair<std::uint16_t, std::uint32_t>, std::vector<Mask>>
      groups;  // by class and place in a slab
  std::size_t total = 0;
  for (const Slab& slab : snapshot.slabs) total += snapshot.shape(slab).pages() / run_pages;
  const std::size_t stride = total / kMostRuns + 1;
  std::size_t position = 0;
  for (const Slab& slab : snapshot.slabs) {
    const bool sampled = position++ % stride == 0;
    const std::uint32_t pages = snapshot.shape(slab).pages();
    for (std::uint32_t p = 0; sampled && p + run_pages <= pages; p += run_pages) {
      const Page* const page = &snapshot.pages[slab.first_page + p];
      if (!std::all_of(page, page + run_pages, [](Page q) { return q.resident; })) continue;
      const Mask mask = mask_of(snapshot, slab, p, run_pages);
      // An empty run needs no partner: it can simply go.
      if (are_disjoint(mask, mask, kWordsPerPage * run_pages)) continue;
      groups[{slab.size_class, p}].push_back(mask);
    }
  }
  std::uint64_t pairs = 0;
  for (auto& [key, runs] : groups) {
    shuffle(runs);
    pairs += count_pairs(runs, kWordsPerPage * run_pages);
  }
  return pairs * stride * run_pages * kPageBytes;
}

}  // namespace ashlar::frag
