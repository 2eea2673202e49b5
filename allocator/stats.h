// SPDX-License-Identifier: MIT
// L5 · stats: sums what slabs, magazines and the buddy know.
//
// What:    plain numbers, read from the structures themselves; no counter is kept for them on
//          any path of malloc or free.
// Threads: any. While others work the sums may be off by what they do meanwhile, never wild:
//          each number is bounded by what the structures can hold. Never allocates.
#pragma once

#include <cstdint>

#include "size_class.h"
#include "units.h"

namespace ashlar {

struct ClassStats {
  std::uint64_t slabs = 0;
  std::uint64_t open_slabs = 0;  // of these, with room
  std::uint64_t slots = 0;       // in those slabs
  std::uint64_t used = 0;        // held by the program
  std::uint64_t cached = 0;      // in magazines
};

struct HeapStats {
  ClassStats classes[kClassCount];
  std::uint64_t large_blocks = 0;
  Bytes large = 0;             // in blocks of large objects
  Bytes allocated = 0;         // slots in use and large blocks
  Bytes magazines = 0;         // free slots in magazines
  Bytes active = 0;            // slabs and large blocks
  Bytes untouched = 0;         // of active, not in memory; measured
  Bytes free = 0;              // pages in no block
  Bytes dirty = 0;             // of these, not given back yet; measured
  Bytes longest_free_run = 0;  // inside one chunk
  Bytes mapped = 0;            // all chunks
  Bytes metadata = 0;          // beside the chunks, and lanes; measured
  Bytes resident = 0;          // of chunks and metadata; measured
  Bytes huge = 0;              // of resident, in huge pages; measured
  std::uint32_t lanes = 0;
  std::uint32_t mosaics = 0;
};

void collect_stats(HeapStats& stats);

}  // namespace ashlar
