// SPDX-License-Identifier: MIT
// How an arena gives pages back to the kernel: free ones, and empty ones inside slabs that live.
#include "arena.h"

#include <algorithm>

namespace ashlar {

namespace {

// What one call may do: about a millisecond's worth.
constexpr Bytes kBytesPerCall = 16 * kMiB;
constexpr std::uint32_t kChunksPerCall = 512;
constexpr std::uint32_t kRunsPerCall = 512;
// What a run takes of purge_pages() at least: a call of the kernel is as much work as that.
constexpr Bytes kLeastOfRun = 16 * kPageBytes;

}  // namespace

Bytes Arena::purge(Purge which) {
  const bool all = which == Purge::at_once;
  Bytes bytes = 0;
  Bytes no_bound = ~Bytes{0};
  std::uint32_t c = all ? 0 : purge_cursor_.load(std::memory_order_relaxed);  // advice
  for (std::uint32_t seen = 0; c < chunks(); seen++) {
    if (!all && (seen == kChunksPerCall || bytes >= kBytesPerCall)) break;
    const ChunkIndex chunk{c++};
    // Its rows are on a page that nothing else may have needed for long.
    if (buddy_.free_pages_in(chunk) == 0) continue;
    if (!all && is_worth_a_huge_page(chunk)) continue;
    bytes += purge_chunk(chunk, which != Purge::aged, no_bound);
    if (meta(chunk).rows.torn.load(std::memory_order_relaxed)) mend(chunk);  // or the next time
  }
  purge_cursor_.store(c < chunks() ? c : 0, std::memory_order_relaxed);
  return bytes;
}

Bytes Arena::purge_pages(PageCount wanted) {
  Bytes bytes = 0;
  Bytes left = bytes_of(wanted);
  std::uint32_t c = chunks();
  for (std::uint32_t seen = 0; c-- > 0 && seen < kChunksPerCall; seen++) {
    const ChunkIndex chunk{c};
    const std::uint32_t free = buddy_.free_pages_in(chunk);
    if (free == 0 || free == kPagesPerChunk || is_worth_a_huge_page(chunk)) continue;
    bytes += purge_chunk(chunk, true, left);
    if (left == 0) break;
  }
  return bytes;
}

// A huge page is broken when most of it is free, or for who wants everything.
bool Arena::is_worth_a_huge_page(ChunkIndex chunk) const {
  return may_be_huge(chunk) && buddy_.free_pages_in(chunk) < kPagesPerChunk / 2;
}

// Runs of free pages, until nothing of what may be done is left.
Bytes Arena::purge_chunk(ChunkIndex chunk, bool all, Bytes& left) {
  Bytes bytes = 0;
  buddy_.age_chunk(chunk, all, [&](PageIndex first, PageCount count) {
    if (left == 0 || !region_.purge(address_of(first), bytes_of(count))) return false;
    bytes += bytes_of(count);
    left -= std::min(left, std::max(bytes_of(count), kLeastOfRun));
    return true;
  });
  return bytes;
}

template <class View>
Bytes Arena::purge_empty_pages(View&& view, Purge which, std::uint32_t& runs) {
  SlabDescriptor& d = view.descriptor();
  const bool cold = !d.taken_from;
  d.taken_from = false;
  if (which == Purge::aged && !cold) return 0;
  Bytes bytes = 0;
  for (std::uint64_t due = view.empty_pages() & ~d.holes; due != 0;) {
    const unsigned first = lowest_bit(due);
    const auto count = static_cast<unsigned>(std::countr_one(due >> first));
    const std::uint64_t run = bit_range(first, count);
    due &= ~run;
    runs++;
    if (!region_.purge(view.base() + first * kPageBytes, count * kPageBytes)) continue;
    d.holes = d.holes | run;
    bytes += count * kPageBytes;
  }
  return bytes;
}

// A slab from which nothing was taken for a whole pass is cold. Which slab is taken from is decided
// by fullness, so the sparse ones, which have the empty pages, are cold for long.
Bytes Arena::purge_slabs(LaneSlabs& lane, Purge which) {
  const bool all = which == Purge::at_once;
  Bytes bytes = 0;
  std::uint32_t runs = 0;
  const std::uint32_t units = chunks() * kUnitsPerChunk;
  std::uint32_t u = all ? 0 : static_cast<std::uint32_t>(lane.purge_cursor);
  while (u < units && (all || (runs < kRunsPerCall && bytes < kBytesPerCall))) {
    const UnitEntry entry = units_[UnitIndex{u}];
    // Where the last part ended a larger slab may have been made since then; it was used just now.
    if (entry.tag() != lane.tag || !is_first_unit(UnitIndex{u}, entry)) {
      u++;
      continue;
    }
    if (entry.is_mosaic()) {
      bytes += purge_empty_pages(mosaic_at(UnitIndex{u}), which, runs);
      u++;
    } else {
      bytes += purge_empty_pages(slab_at(UnitIndex{u}, entry.size_class()), which, runs);
      u += size_class(entry.size_class()).slab_bytes / kUnitBytes;
    }
  }
  lane.purge_cursor = u < units ? u : 0;
  return bytes;
}

}  // namespace ashlar
