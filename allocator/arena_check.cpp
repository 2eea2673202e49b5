// SPDX-License-Identifier: MIT
// What an address is, and whether an arena is whole.
#include "arena.h"

namespace ashlar {

Place Arena::locate(const void* p) const {
  Place place;
  if (!contains(p)) return place;
  const UnitEntry entry = entry_of(p);
  if (entry.is_slab()) {
    const SizeClass& info = size_class(entry.size_class());
    const Slab slab = slab_at(slab_unit(p, info), entry.size_class());
    const auto offset = static_cast<std::uint32_t>(static_cast<const std::byte*>(p) - slab.base());
    const std::uint32_t slot = slot_index(offset, info.magic);
    const bool in_use = slot < info.capacity && !slab.is_free(slot);
    place.kind = in_use ? Place::Kind::slot : Place::Kind::free;
    place.size_class = entry.size_class();
    place.begin = slab.base() + Bytes{slot} * info.slot_bytes;
    place.bytes = info.slot_bytes;
    return place;
  }
  if (entry.is_mosaic()) {
    const Mosaic mosaic = mosaic_of(p);
    place.begin = mosaic.begin_of(p);
    place.kind = place.begin != nullptr ? Place::Kind::slot : Place::Kind::free;
    if (place.begin == nullptr) {
      place.begin = static_cast<std::byte*>(const_cast<void*>(p));
      return place;
    }
    place.bytes = mosaic.bytes_at(place.begin);
    place.size_class = class_for(place.bytes);
    return place;
  }
  PageIndex page = page_of(p);
  place.kind = Place::Kind::free;
  if (buddy_.is_free(page)) return place;
  while (page.v > 0 && buddy_.kind_at(page) == BlockKind::none) page.v--;
  const BlockKind kind = buddy_.kind_at(page);
  place.begin = static_cast<std::byte*>(address_of(page));
  place.bytes = bytes_of(buddy_.pages_at(page));
  if (static_cast<const std::byte*>(p) < place.begin + place.bytes) {
    place.kind = kind == BlockKind::large    ? Place::Kind::large
                 : kind == BlockKind::cached ? Place::Kind::free
                                             : Place::Kind::internal;
  }
  return place;
}

const char* Arena::check_invariants() const {
  if (const char* broken = buddy_.check_invariants()) return broken;
  const char* broken = nullptr;
  for_each_slab([&](Slab slab, std::uint64_t tag) {
    if (broken != nullptr) return;
    const SlabDescriptor& d = slab.descriptor();
    const UnitIndex unit = unit_of_slab(slab);
    const LaneSlabs& lane = lane_at(PageIndex{d.owner.load()});
    const ClassIndex c = units_[unit].size_class();
    broken = slab.check_invariants();
    if (broken != nullptr) return;
    if (d.size_class != c.v || lane.tag != tag) broken = "arena 1: entry and descriptor disagree";
    if (buddy_.kind_at(first_page(unit)) != BlockKind::slab) broken = "arena 1: no block of a slab";
    const SizeClass& info = slab.size_class_info();
    const bool aside = d.list == LaneSlabs::kAsideList;
    if (!aside && d.list != fullness(info, d.used)) broken = "arena 2: the wrong list";
    if (d.least_used > static_cast<std::int32_t>(d.used) && d.used != 0)
      broken = "arena 2: the wrong bound of a list";
    if (broken != nullptr || d.list == LaneSlabs::kNoList) return;
    if (!aside && (lane.nonempty[c.v] >> d.list & 1) == 0) {
      broken = "arena 2: a list says it is empty";
    }
    const std::uint32_t back =
        d.prev == kNone
            ? (aside ? lane.aside[c.v] : lane.head[c.v][d.list])
            : static_cast<std::uint32_t>(slab_at(UnitIndex{d.prev}, c).descriptor().next);
    if (back != unit.v) broken = "arena 3: a link does not lead back";
    if (d.next == kNone) return;
    const UnitEntry next = units_[UnitIndex{d.next}];
    if (next.tag() != tag || next.size_class() != c) broken = "arena 3: a link leads elsewhere";
  });
  for_each_mosaic([&](Mosaic mosaic, std::uint64_t) {
    if (broken != nullptr) return;
    const SlabDescriptor& d = mosaic.descriptor();
    const LaneSlabs& lane = lane_at(PageIndex{d.owner.load()});
    const UnitIndex unit = unit_of(page_of(mosaic.base()));
    broken = mosaic.check_invariants();
    if (d.list != LaneSlabs::kMosaicList) broken = "arena 4: a mosaic in the wrong list";
    const std::uint32_t back =
        d.prev == kNone
            ? lane.first_mosaic
            : static_cast<std::uint32_t>(mosaic_at(UnitIndex{d.prev}).descriptor().next);
    if (back != unit.v) broken = "arena 4: a link does not lead back";
  });
  for (std::uint32_t u = 0; u < chunks() * kUnitsPerChunk; u++) {
    const UnitIndex unit{u};
    if (units_[unit].is_large() && buddy_.kind_at(first_page(unit)) != BlockKind::large) {
      broken = "arena 5: no large block of a heap";
    }
  }
  return broken;
}

}  // namespace ashlar
