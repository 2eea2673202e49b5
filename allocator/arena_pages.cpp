// SPDX-License-Identifier: MIT
// Whole pages of an arena: large objects, our own data, and all that one lane has.
#include "arena.h"

namespace ashlar {

void* Arena::take_pages(PageCount pages, Bytes alignment, BlockKind kind, bool& zero) {
  const Bytes aligned_pages = alignment > kPageBytes ? alignment / kPageBytes : 1;
  if (aligned_pages > kNone) return nullptr;
  const std::uint64_t origin = reinterpret_cast<std::uintptr_t>(data_) / kPageBytes;
  const Block block =
      buddy_.take(pages, PageCount{static_cast<std::uint32_t>(aligned_pages)}, kind, origin);
  if (!block) return nullptr;
  zero = block.zero;
  return address_of(block.first);
}

bool Arena::give_pages(void* first, BlockKind kind, Contents contents) {
  return data_offset(first) % kPageBytes == 0 && buddy_.give(page_of(first), kind, contents);
}

bool Arena::resize_pages(void* first, PageCount pages, bool& zero) {
  return buddy_.resize(page_of(first), pages, zero);
}

void* Arena::take_owned_pages(LaneSlabs& lane, PageCount pages, Bytes alignment) {
  const Bytes stricter = alignment > kUnitBytes ? alignment : kUnitBytes;
  bool zero = false;
  void* const first = take_pages(pages, stricter, BlockKind::large, zero);
  if (first == nullptr) return nullptr;
  const UnitIndex unit = unit_of(page_of(first));
  note_unit(lane, unit);
  units_.set(unit, 1, UnitEntry::large(lane.tag));
  return first;
}

bool Arena::give_owned_pages(void* first) {
  const UnitEntry entry = entry_of(first);
  return data_offset(first) % kUnitBytes == 0 && entry.is_large() &&
         units_.remove(unit_of(page_of(first)), entry) && give_pages(first, BlockKind::large);
}

void Arena::give_all(LaneSlabs& lane) {
  drain_inbox(lane);
  for_each_of(
      lane,
      [&](Slab slab) {
        slab.drain_remote();
        give_slab_block(lane, unit_of_slab(slab), slab.size_class_info().slab_bytes / kUnitBytes);
      },
      [&](void* first, Bytes) {
        const bool given = give_owned_pages(first);
        ASHLAR_ASSERT(given);
        static_cast<void>(given);
      });
  forget_slabs(lane);
}

}  // namespace ashlar
