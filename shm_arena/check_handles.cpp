// SPDX-License-Identifier: MIT
#include "check_handles.h"

#include "handle_slabs.h"
#include "processes.h"

namespace ashlar::shm {

namespace {

bool broken(Text& why, std::string_view thing, std::uint64_t number, std::string_view what) {
  why.put("9: ").put(thing).put(' ').decimal(number).put(' ').put(what);
  return false;
}

// Counts objects by slab.
bool check_entries(const ashlar_shm& arena, std::uint32_t* objects, Text& why) {
  const std::uint32_t end = arena.state().handles_end.load();
  if (end > arena.segment.geometry().handle_count || end > arena.state().handles_backed.load()) {
    return broken(why, "table of handles", end, "is longer than its memory");
  }
  for (std::uint32_t index = 0; index < end; index++) {
    const HandleEntry entry = arena.handle_word(index)->load();
    if (entry.state() == HandleEntry::kFree) continue;
    const Bytes at = entry.data_offset();
    const SlabRef slab =
        arena.contains(at)
            ? SlabRef::find(arena, UnitIndex{static_cast<std::uint32_t>(at / kUnitBytes)})
            : SlabRef::none();
    if (!slab.exists() || !slab.is_for_handles()) {
      return broken(why, "handle", index, "has an object outside of their slabs");
    }
    const std::uint32_t slot = slab.slot_at(at);
    if (slot == slab.info().capacity || slab.is_free(slot)) {
      return broken(why, "handle", index, "has an object in a free slot");
    }
    objects[slab.first().v]++;
  }
  return true;
}

}  // namespace

bool check_handles(ashlar_shm& arena, Text& why) {
  const Bytes bytes = arena.pages.chunks() * kUnitsPerChunk * sizeof(std::uint32_t) + 1;
  auto* const objects = static_cast<std::uint32_t*>(map_private(bytes));
  if (objects == nullptr) return broken(why, "count", 0, "finds no memory");
  bool sound = check_entries(arena, objects, why);
  for_each_handle_slab(
      arena,
      [&](const SlabRef& slab) {
        if (sound && slab.used_slots() != objects[slab.first().v]) {
          sound =
              broken(why, "slab", slab.first().v, "has slots in use without a handle, or shared");
        }
      },
      UnitIndex{0}, end_of_units(arena));
  unmap(objects, bytes);
  return sound;
}

}  // namespace ashlar::shm
