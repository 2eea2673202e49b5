// SPDX-License-Identifier: MIT
// metrics: numbers about a snapshot. README.md beside this file defines each of them, with formula,
// unit, source and a worked example; the names are the same there, here and in what the tool says.
//
// Threads: pure functions.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "snapshot.h"

namespace ashlar::frag {

// From what the program holds to what the kernel gave. Bytes.
struct Waterfall {
  std::uint64_t allocated = 0;
  std::uint64_t magazines = 0;
  std::uint64_t pending = 0;
  std::uint64_t gaps = 0;
  std::uint64_t active = 0;  // the sum of the four above
  std::uint64_t untouched = 0;
  std::uint64_t dirty = 0;
  std::uint64_t free = 0;
  std::uint64_t mapped = 0;
  std::uint64_t metadata = 0;
  std::uint64_t resident = 0;  // active − untouched + dirty + metadata
  std::uint64_t swapped = 0;
};
Waterfall waterfall(const Snapshot& snapshot);

// What the program asked for, before rounding up. The allocator keeps no sizes: they lie between
// what the live slots' classes and pages allow, and samples tell more.
struct Requested {
  std::uint64_t least = 0;
  std::uint64_t most = 0;
  std::optional<std::uint64_t> estimate;   // by samples
  std::optional<std::uint64_t> deviation;  // of the estimate
};
Requested requested(const Snapshot& snapshot);

// One size class.
struct ClassMetrics {
  std::uint32_t slot_bytes = 0;
  std::uint64_t slabs = 0;
  std::uint64_t slots = 0;
  std::uint64_t live = 0;                   // objects in those slabs
  std::uint64_t in_mosaics = 0;             // objects of this size in mosaics
  std::uint64_t cached = 0;                 // slots in magazines
  std::uint64_t pending = 0;                // slots freed by other threads
  std::uint64_t active = 0;                 // bytes of the slabs
  std::uint64_t free = 0;                   // bytes of slots that are not live
  std::uint64_t tails = 0;                  // bytes of slabs behind the last slot
  std::uint64_t rounding_most = 0;          // bytes that rounding up may have cost, at most
  std::uint64_t empty_pages = 0;            // bytes of resident pages without a live object
  std::array<std::uint64_t, 10> deciles{};  // slabs by occupancy: [0] below 10 % … [9] from 90 %
};
// Classes that have a slab or objects, ascending.
std::vector<ClassMetrics> classes(const Snapshot& snapshot);

// Slabs that were re-cut for objects of all sizes.
struct Mosaics {
  std::uint64_t mosaics = 0;
  std::uint64_t active = 0;   // bytes
  std::uint64_t free = 0;     // bytes that are not in live objects
  std::uint64_t objects = 0;  // live
};
Mosaics mosaics(const Snapshot& snapshot);

// A heap that the program made. One on pages of its own has them in no arena of ours, and is not
// there.
struct ProgramHeapUse {
  std::uint64_t number = 0;  // of the heaps that the process made, the how manieth
  std::uint64_t objects = 0;
  std::uint64_t allocated = 0;  // bytes of live slots and large blocks
  std::uint64_t active = 0;     // bytes of its slabs and large blocks
};
// Those that hold anything, the most active first.
std::vector<ProgramHeapUse> program_heaps(const Snapshot& snapshot);

// For each page, the bytes of it that are in use: live objects, large objects, our own data.
std::vector<std::uint16_t> page_occupancy(const Snapshot& snapshot);

// Bytes of resident pages in slabs. `returnable`: no slot of the page is taken, so nobody may write
// there. `empty`: no object is live, but a magazine may hold slots of it.
struct EmptyPages {
  std::uint64_t empty = 0;
  std::uint64_t returnable = 0;
};
EmptyPages empty_pages(const Snapshot& snapshot);

// Bytes that merging pages would save, without moving an object's address: of two runs of
// `run_pages` pages at the same place in slabs of one class that share no live byte, one can go.
std::uint64_t meshable(const Snapshot& snapshot, std::uint32_t run_pages);

// Resident bytes of free pages by how long they have been free.
struct DirtyAge {
  std::uint64_t fresh = 0;  // since the purger's last pass
  std::uint64_t aged = 0;   // longer
};
DirtyAge dirty_by_age(const Snapshot& snapshot);

// Runs of free pages. Entry i: runs of 2^i … 2^(i+1) − 1 pages; a run may cross chunks.
struct FreeRuns {
  static constexpr std::size_t kOrders = 33;
  std::array<std::uint64_t, kOrders> runs{};
  std::array<std::uint64_t, kOrders> pages{};
  std::uint64_t free_pages = 0;
  std::uint64_t longest = 0;
};
FreeRuns free_runs(const Snapshot& snapshot);

// Gorman's unusable free space index for requests of `request_pages`: the part of free memory that
// lies where no such request fits. 0: all of it serves; 1: none. 0 when nothing is free.
double unusable_free_space(const Snapshot& snapshot, std::uint64_t request_pages);

// Resident bytes of active memory that lie in huge pages; none where the kernel does not say.
struct HugePages {
  std::uint64_t covered = 0;
  std::uint64_t resident = 0;
};
std::optional<HugePages> huge_pages(const Snapshot& snapshot);

// One moment of a recording.
struct Moment {
  std::int64_t ms = 0;  // since the recording began
  Waterfall heap;
  std::uint64_t rss = 0;  // of the process, 0: unknown
};

// The four figures of Johnstone and Wilson, with `allocated` for what the program holds and
// `resident` for what it costs. All at least about 1; 0 when nothing was allocated.
struct JohnstoneWilson {
  double mean = 0;              // #1: resident ÷ allocated, averaged over the moments
  double at_most_live = 0;      // #2: at the moment when most was allocated
  double at_most_resident = 0;  // #3: at the moment when most was resident
  double most_over_most = 0;    // #4: most resident ÷ most allocated
};
JohnstoneWilson johnstone_wilson(std::span<const Moment> recording);

}  // namespace ashlar::frag
