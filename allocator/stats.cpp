// SPDX-License-Identifier: MIT
#include "stats.h"

#include "heap.h"

namespace ashlar {

void collect_stats(HeapStats& stats) {
  stats = HeapStats{};
  if (!arena.exists()) return;

  heap.for_each_lane([&](const Lane& lane) {
    stats.lanes++;
    stats.metadata += os::resident_bytes(&lane, bytes_of(kLanePages));
    for (std::uint32_t c = 0; c < kClassCount; c++) {
      stats.classes[c].cached += lane.magazine[c].count();
    }
  });
  arena.for_each_slab([&](const Slab& slab, std::uint64_t) {
    ClassStats& of_class = stats.classes[slab.descriptor().size_class];
    of_class.slabs++;
    of_class.open_slabs += !slab.is_full();
    of_class.slots += slab.size_class_info().capacity;
    of_class.used += slab.descriptor().used;
    stats.active += slab.size_class_info().slab_bytes;
  });
  arena.for_each_mosaic([&](const Mosaic& mosaic, std::uint64_t) {
    stats.mosaics++;
    stats.active += kUnitBytes;
    mosaic.for_each_object([&](const std::byte*, Bytes bytes) {
      if (bytes > kMaxSlotBytes) return;  // somebody is at work
      ClassStats& of_class = stats.classes[class_for(bytes).v];
      of_class.slots++;
      of_class.used++;
    });
  });
  for (std::uint32_t c = 0; c < kClassCount; c++) {
    ClassStats& of_class = stats.classes[c];
    if (of_class.cached > of_class.used) of_class.cached = of_class.used;  // somebody is at work
    of_class.used -= of_class.cached;
    stats.allocated += of_class.used * kSizeClasses[c].slot_bytes;
    stats.magazines += of_class.cached * kSizeClasses[c].slot_bytes;
  }

  const Buddy::Counts pages = arena.buddy().count();
  stats.large_blocks = pages.large_blocks;
  stats.large = pages.large_pages * kPageBytes;
  stats.allocated += stats.large;
  stats.magazines += pages.cached_pages * kPageBytes;
  stats.active += stats.large + pages.cached_pages * kPageBytes;
  stats.free = pages.free_pages * kPageBytes;
  arena.buddy().for_each_dirty_run([&](PageIndex first, PageCount count) {
    stats.dirty += os::resident_bytes(arena.address_of(first), bytes_of(count));
  });
  stats.longest_free_run = Bytes{pages.longest_run} * kPageBytes;
  stats.mapped = arena.data_bytes() - pages.unusable_pages * kPageBytes;
  // Of the chunks, what is in memory belongs to lanes, free pages, or slabs and large blocks.
  const Bytes resident_data = arena.resident_data();
  const Bytes elsewhere = stats.metadata + stats.dirty;
  const Bytes touched = resident_data > elsewhere ? resident_data - elsewhere : 0;
  stats.untouched = stats.active > touched ? stats.active - touched : 0;
  stats.resident = resident_data + arena.resident_metadata();
  stats.huge = arena.huge_data();
  stats.metadata += arena.resident_metadata();
}

}  // namespace ashlar
