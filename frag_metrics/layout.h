// SPDX-License-Identifier: MIT
// layout: a number that changes whenever the memory that readers read is laid out differently.
//
// What:    a hash over the sizes and offsets of the allocator's own structures and over its size
//          classes. The library carries it in its root, the reader compares it with its own: both
//          are computed here, from the same headers, so nobody has to remember to count it up.
//          A change of meaning without a change of layout is what Root::kVersion is for.
#pragma once

#include <cstddef>
#include <cstdint>

#include "arena_layout.h"
#include "options.h"
#include "program_heap.h"
#include "root.h"
#include "sampler.h"
#include "thread_cache.h"

namespace ashlar::frag {

consteval std::uint64_t layout_hash() {
  std::uint64_t hash = 0xcbf2'9ce4'8422'2325;
  const auto mix = [&hash](std::uint64_t n) {
    for (int i = 0; i < 8; i++, n >>= 8) hash = (hash ^ (n & 0xff)) * 0x100'0000'01b3;  // FNV-1a
  };
  mix(sizeof(Root));
  mix(sizeof(ArenaHeader));
  mix(sizeof(Options));
  for (const std::size_t n :
       {kPageBytes, kUnitBytes, kChunkBytes, kMagazineBytes, kTagGrain, bytes_of(kLanePages)}) {
    mix(n);
  }
  mix(sizeof(ChunkMeta));
  mix(offsetof(ChunkMeta, slab));
  mix(offsetof(ChunkMeta, short_free));
  mix(offsetof(ChunkMeta, short_remote));
  mix(offsetof(ChunkMeta, rows));
  mix(offsetof(ChunkMeta, long_free));
  mix(offsetof(ChunkMeta, long_remote));
  mix(offsetof(ChunkMeta, mosaic_free));
  mix(offsetof(ChunkMeta, mosaic_start));
  mix(kGrainBytes);
  mix(ChunkMeta::kShortWords);
  mix(sizeof(SlabDescriptor));
  mix(offsetof(SlabDescriptor, used));
  mix(offsetof(SlabDescriptor, size_class));
  mix(sizeof(ChunkRows));
  mix(offsetof(ChunkRows, free));
  mix(offsetof(ChunkRows, dirty));
  mix(offsetof(ChunkRows, aged));
  mix(offsetof(ChunkRows, block));
  mix(BlockWord::kKindShift);
  mix(static_cast<std::uint64_t>(BlockKind::taken));
  mix(sizeof(ashlar::Lane));
  mix(offsetof(ashlar::Lane, magazine));
  mix(offsetof(ashlar::Lane, leased));
  mix(offsetof(ashlar::Lane, remote_count));
  mix(offsetof(ashlar::Lane, slabs));
  mix(offsetof(ashlar::Lane, remote));
  mix(offsetof(LaneSlabs, tag));
  mix(sizeof(Magazine));
  mix(offsetof(Magazine, take));
  mix(offsetof(Magazine, give));
  mix(offsetof(Magazine, capacity));
  mix(offsetof(Magazine, take_base));
  mix(offsetof(Magazine, give_base));
  mix(offsetof(ProgramHeapHead, number));
  mix(sizeof(Sampler));
  mix(sizeof(SampleTable));
  mix(offsetof(SampleTable, cell));
  mix(offsetof(SampleRecord, mean_bytes));
  mix(offsetof(SampleRecord, registers));
  for (const SizeClass& c : kSizeClasses) {
    mix(c.slot_bytes);
    mix(c.slab_bytes);
  }
  return hash;
}

}  // namespace ashlar::frag
