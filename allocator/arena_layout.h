// SPDX-License-Identifier: MIT
// L3 · arena_layout: where things are in an arena's region, for the arena and for those who read
// one from outside.
//
// Position: independent; offsets from the region's first byte.
#pragma once

#include <atomic>

#include "arena.h"

namespace ashlar {

// The region's first bytes.
struct ArenaHeader {
  static constexpr std::uint64_t kMagic = 0x31'72'61'6c'68'73'61;  // "ashlar1", read backwards
  static constexpr std::uint32_t kVersion = 1;

  std::uint64_t magic;                // const
  std::uint32_t version;              // const
  std::uint32_t max_chunks;           // const
  std::atomic<std::uint32_t> chunks;  // atomic: who grows the arena → all
  alignas(kCacheLineBytes) PageTotals totals;

  // To the end of the header's page: 123 GiB's worth. Chunks beyond are looked at one by one.
  static constexpr std::uint32_t kGroups =
      (kPageBytes - 2 * kCacheLineBytes) / sizeof(std::uint32_t);
  alignas(kCacheLineBytes) std::atomic<std::uint32_t> groups[kGroups];  // see Buddy::use_groups
};
static_assert(sizeof(ArenaHeader) == kPageBytes);

// What follows the header in a region of that many chunks.
struct Geometry {
  Bytes table;
  Bytes summaries;
  Bytes meta;
  Bytes data;

  static constexpr Bytes kTableBytesPerChunk = kUnitsPerChunk * sizeof(std::uint64_t);
  static constexpr Bytes kSummaryBytesPerChunk = sizeof(std::uint32_t);
  // Pages are counted in 32 bits, kNone is not a page.
  static constexpr std::uint32_t kChunkLimit = kNone / kPagesPerChunk;

  explicit constexpr Geometry(std::uint32_t chunks)
      : table(kPageBytes),
        summaries(align_up(table + chunks * kTableBytesPerChunk, kPageBytes)),
        meta(align_up(summaries + chunks * kSummaryBytesPerChunk, kPageBytes)),
        data(align_up(meta + chunks * sizeof(ChunkMeta), kChunkBytes)) {}

  constexpr Bytes bytes(std::uint32_t chunks) const { return data + Bytes{chunks} * kChunkBytes; }
};

}  // namespace ashlar
