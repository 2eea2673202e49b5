// SPDX-License-Identifier: MIT
#include "check_arena.h"

#include "check_handles.h"
#include "roots.h"
#include "slabs.h"

namespace ashlar::shm {

namespace {

class Check {
 public:
  Check(ashlar_shm& arena, Text& why) : arena_(arena), why_(why) {}

  bool run() {
    arena_.pages.refresh();
    if (!header()) return false;
    for (std::uint32_t l = 0; l < arena_.lanes_end(); l++) {
      if (!lane(l)) return false;
    }
    for (std::uint32_t c = 0; c < arena_.pages.chunks(); c++) {
      if (!chunk(ChunkIndex{c})) return false;
    }
    for (std::uint32_t r = 0; r < kRoots; r++) {
      if (!root(r)) return false;
    }
    return check_handles(arena_, why_);
  }

 private:
  bool broken(int invariant, std::string_view thing, std::uint64_t number, std::string_view what) {
    why_.decimal(static_cast<std::uint64_t>(invariant)).put(": ").put(thing).put(' ');
    why_.decimal(number).put(' ').put(what);
    return false;
  }

  bool header() {
    const Header& h = arena_.segment.at<Header>(0);
    const std::uint64_t sum =
        hash_bytes(reinterpret_cast<const unsigned char*>(&h), offsetof(Header, checksum));
    if (h.magic == Header::kMagic && h.checksum == sum) return true;
    return broken(1, "header of version", h.version, "was changed");
  }

  bool lane(std::uint32_t l) {
    const Lane& lane = arena_.lane(l);
    const LaneState state = lane.state.load();
    if (state.kind > LaneState::kIdle) return broken(7, "lane", l, "has a state that is none");
    if (state.kind == LaneState::kVacant) {
      return lane.publishing.load() == 0 || broken(7, "lane", l, "is vacant and has a block");
    }
    if (state.process >= kProcesses ||
        arena_.processes.state_of(state.process).kind == ProcessState::kFree) {
      return broken(7, "lane", l, "is leased by nobody");
    }
    return true;
  }

  bool chunk(ChunkIndex c) {
    const ChunkState state = arena_.pages.state_of(c);
    if (state.holder != 0) {
      if (state.holder > kLanes) return broken(2, "chunk", c.v, "is held by a lane that is none");
      const LaneState holder = arena_.lane(state.holder - 1u).state.load();
      if (holder.kind == LaneState::kVacant || holder.process >= kProcesses ||
          arena_.processes.is_dead(holder.process)) {
        return broken(2, "chunk", c.v, "is held by a lane whose process is gone");
      }
      return true;  // somebody is at work in it
    }
    return pages(c, state) && units(c);
  }

  bool pages(ChunkIndex c, ChunkState state) {
    const ChunkRows& row = arena_.pages.meta(c).core.rows;
    const std::uint32_t begin = first_page(c).v;
    std::uint32_t block_end = state.backed != 0 ? arena_.pages.covered(c) : kPagesPerChunk;
    std::uint32_t free = 0;
    for (std::uint32_t i = 0; i < kPagesPerChunk; i++) {
      const bool is_free = (row.free[i / 64].load() >> i % 64 & 1) != 0;
      const std::uint32_t word = row.block[i].load();
      free += is_free;
      if (word != 0) {
        const BlockKind kind = BlockWord::kind(word);
        const bool known = kind == BlockKind::slab || kind == BlockKind::large ||
                           (kind == BlockKind::cached && state.has_freed != 0);
        const std::uint32_t count = arena_.pages.pages_of(PageIndex{begin + i}, kind).v;
        if (i < block_end) return broken(3, "page", begin + i, "begins a block inside another");
        if (!known || count == 0)
          return broken(3, "page", begin + i, "begins a block that is none");
        block_end = i + count;
      }
      if (is_free && i < block_end) return broken(3, "page", begin + i, "is free and in a block");
      if (!is_free && i >= block_end) {
        return broken(3, "page", begin + i, "is neither free nor in a block");
      }
    }
    if (arena_.pages.buddy().free_pages_in(c) != free) {
      return broken(4, "summary", c.v, "counts wrong");
    }
    return true;
  }

  bool units(ChunkIndex c) {
    for (std::uint32_t u = c.v * kUnitsPerChunk; u < (c.v + 1) * kUnitsPerChunk;) {
      const UnitIndex unit{u};
      const SlabRef slab = SlabRef::find(arena_, unit);
      const UnitEntry entry{arena_.entry(unit).load()};
      if (!slab.exists()) {
        if (entry.word() != 0) return broken(5, "unit", u, "has the entry of no slab");
        if (arena_.pages.buddy().kind_at(first_page(unit)) == BlockKind::slab) {
          return broken(5, "unit", u, "has a slab without entries");
        }
        u++;
        continue;
      }
      const bool has_owner = lane_of_tag(entry.tag()) != kLanes || entry.tag() == kOpenTag;
      if (slab.first() != unit || !has_owner) {
        return broken(5, "unit", u, "has an entry that is not its slab's");
      }
      for (std::uint32_t i = 0; i < slab.units(); i++) {
        if (arena_.entry(UnitIndex{u + i}).load() != entry.word()) {
          return broken(5, "unit", u + i, "has an entry that is not its slab's");
        }
      }
      if (!bits(slab)) return false;
      u += slab.units();
    }
    return true;
  }

  bool bits(const SlabRef& slab) {
    const std::uint32_t lane = lane_of_tag(slab.tag());
    const bool is_leased =
        lane == kLanes || arena_.lane(lane).state.load().kind == LaneState::kLeased;
    for (std::uint32_t w = 0; w < slab.info().words; w++) {
      const std::uint64_t free = slab.word(w).load();
      const std::uint64_t freed = slab.remote_word(w).load();
      const std::uint64_t slots = slab.slots_of_word(w);
      if ((~free & ~slots) != 0 || (freed & ~slots) != 0) {
        return broken(6, "slab", slab.first().v, "has a bit without a slot");
      }
      // Whoever leases a vacant lane takes over what its last owner had begun to.
      if ((free & freed) != 0 && is_leased) {
        return broken(6, "slab", slab.first().v, "has a slot that is free and freed");
      }
    }
    return true;
  }

  bool root(std::uint32_t r) {
    const Offset offset = arena_.root(r).load();
    if (offset == 0) return true;
    const Root* const record = root_at(arena_, offset);
    if (record == nullptr) return broken(8, "root", r, "has no record");
    if (find_root(arena_, record->key) != record) return broken(8, "root", r, "is not found");
    return true;
  }

  ashlar_shm& arena_;
  Text& why_;
};

}  // namespace

bool check_arena(ashlar_shm& arena, Text& why) { return Check(arena, why).run(); }

}  // namespace ashlar::shm
