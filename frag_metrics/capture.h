// SPDX-License-Identifier: MIT
// capture: finds the heap of a target and takes a snapshot of it.
//
// What:    find_roots() looks for the allocator's root symbol in the ELF files that the target has
//          mapped: a preloaded, linked or dlopened library, or the program itself. Where all
//          symbols were stripped it looks for the root's first word in writable parts of files.
//          An arena in shared memory is found by its file. capture() copies the arena's metadata
//          and turns it into a Snapshot.
// How:     nothing that was read is believed: magic, version and layout are compared, every index
//          is checked, nothing is followed, and memory is bounded by `Limits`. A slab that changed
//          while it was read (its count and its bitmap disagree) is read again.
// Errors:  Error.
// Threads: one at a time for a target.
#pragma once

#include <cstdint>
#include <vector>

#include "samples.h"
#include "snapshot.h"
#include "target.h"

namespace ashlar::frag {

struct Limits {
  std::uint32_t chunks = 1 << 18;                // 512 GiB of heap
  std::uint64_t bytes = std::uint64_t{2} << 30;  // of the snapshot
};

// Addresses of roots, a few dozen at most; empty: the target does not run on this allocator.
std::vector<std::uint64_t> find_roots(Target& target);

// The first root that has an arena, or the last one. Error when there is none.
std::uint64_t find_arena(Target& target);

// The arena of the root at that address.
Snapshot capture(Target& target, std::uint64_t root, const Limits& limits = {});

// The file of a shared arena.
Snapshot capture_segment(Target& target, const SegmentFile& file, const Limits& limits = {});

// The file of a shared arena, or the arena of the root that find_arena() finds.
Snapshot capture(Target& target, const Limits& limits = {});

// The samples that the target keeps (option sample_kib) of objects that are live in the snapshot,
// which is of the same root; `stacks`: with what they unwind from. Error when it keeps none.
Samples capture_samples(Target& target, std::uint64_t root, const Snapshot& snapshot,
                        bool stacks = true);

}  // namespace ashlar::frag
