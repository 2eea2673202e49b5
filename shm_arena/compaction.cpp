// SPDX-License-Identifier: MIT
#include "compaction.h"

#include <cerrno>
#include <cstring>
#include <ctime>

#include "recovery.h"
#include "victims.h"

namespace ashlar::shm {

namespace {

std::uint64_t now_us() {
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<std::uint64_t>(now.tv_sec) * 1'000'000 +
         static_cast<std::uint64_t>(now.tv_nsec) / 1000;
}

class Pass {
 public:
  Pass(View& view, Compaction& pass) : arena_(*view.arena), view_(view), pass_(pass) {
    if (pass.budget_us != 0) end_us_ = now_us() + pass.budget_us;
  }

  int run() {
    std::atomic<std::uint32_t>& at = arena_.state().pass_at;
    if (at.load() == 0) {
      if (!choose_victims(view_, pass_.freed_bytes)) return ENOMEM;
      arena_.state().handle_room.store(~std::uint64_t{0});
      at.store(1);
    }
    constexpr std::uint32_t kLook = 64;  // entries between two looks at the clock
    const std::uint32_t end = arena_.state().handles_end.load();
    for (std::uint32_t index = at.load() - 1; index < end; index++) {
      at.store(index + 1);
      const std::uint64_t moved = pass_.moved;
      visit(index);
      if ((moved != pass_.moved || index % kLook == 0) && is_spent()) return 0;
    }
    at.store(0);
    arena_.state().handle_room.store(~std::uint64_t{0});
    pass_.finished = true;
    return 0;
  }

 private:
  bool is_spent() const {
    return (pass_.budget_bytes != 0 && pass_.moved_bytes >= pass_.budget_bytes) ||
           (end_us_ != 0 && now_us() >= end_us_);
  }

  void visit(std::uint32_t index) {
    HandleWord& word = *arena_.handle_word(index);
    const HandleEntry entry = word.load();
    if (entry.state() == HandleEntry::kDropped) return reclaim(view_, index);
    if (!entry.is_usable() || !arena_.contains(entry.data_offset())) return;
    const SlabRef slab = SlabRef::find(
        arena_, UnitIndex{static_cast<std::uint32_t>(entry.data_offset() / kUnitBytes)});
    if (!slab.exists() || !slab.is_for_handles() || !is_victim(slab)) return;
    HeldSlab from(arena_, view_.lane, slab.first());
    if (!from) return;
    move(index, word, entry, from);
    const Bytes slab_bytes = from->info().slab_bytes;
    if (from.is_empty() && from.retire()) pass_.freed_bytes += slab_bytes;
  }

  // While its slab is held, the object cannot go and come back to the same place.
  void move(std::uint32_t index, HandleWord& word, HandleEntry entry, const HeldSlab& from) {
    const Bytes old = entry.data_offset();
    const std::uint32_t old_slot = from->slot_at(old);
    if (old_slot == from->info().capacity) return;
    const HandleEntry moving = entry.with(HandleEntry::kMoving);
    if (!word.compare_exchange_strong(entry, moving)) return;
    if (!is_pinned(arena_, index)) {
      const HeldSlab to =
          hold_slab_with_room(view_, from->size_class_index(), Room::but_no_new_slab);
      if (to && copy(index, word, moving, from, old_slot, to)) return;
    } else {
      pass_.locked++;
    }
    HandleEntry unmoved = moving;
    word.compare_exchange_strong(unmoved, moving.with(HandleEntry::kLive));
  }

  bool copy(std::uint32_t index, HandleWord& word, HandleEntry moving, const HeldSlab& from,
            std::uint32_t old_slot, const HeldSlab& to) {
    const Bytes bytes = from->info().slot_bytes;
    const std::uint32_t slot = to.free_slot();
    const Bytes old = moving.data_offset();
    const Bytes at = to.offset_of(slot);
    const Change change(view_, index, old, at);
    to->take(slot);
    std::memcpy(arena_.data + at, arena_.data + old, bytes);
    const HandleEntry moved(HandleEntry::kLive, moving.generation(), at);
    if (!word.compare_exchange_strong(moving, moved)) {
      to->give(slot);
      return false;
    }
    from->give(old_slot);
    pass_.moved++;
    pass_.moved_bytes += bytes;
    return true;
  }

  ashlar_shm& arena_;
  View& view_;
  Compaction& pass_;
  std::uint64_t end_us_ = 0;
};

}  // namespace

int compact(ashlar_shm& arena, Compaction& pass) {
  View* const view = view_for_handles(arena);
  if (view == nullptr) return errno;
  std::atomic<std::uint32_t>& compactor = arena.state().compactor;
  std::uint32_t nobody = 0;
  if (!compactor.compare_exchange_strong(nobody, view->lane + 1)) {
    nobody = 0;
    const bool recovered = recover_dead(arena) != 0;
    if (!recovered || !compactor.compare_exchange_strong(nobody, view->lane + 1)) return EBUSY;
  }
  const int error = Pass(*view, pass).run();
  compactor.store(0);
  return error;
}

}  // namespace ashlar::shm
