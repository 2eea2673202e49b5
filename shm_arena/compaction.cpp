// SPDX-License-Identifier: MIT
#include "compaction.h"

#include <cerrno>
#include <cstring>

#include "lane_room.h"
#include "recovery.h"
#include "shortage.h"
#include "victim_walk.h"

namespace ashlar::shm {

namespace {

// What lies in `from` goes to another slab. While `from` is held, it cannot go and come back to the
// same place. False: it stays.
bool move(View& view, std::uint32_t index, HandleEntry moving, const HeldSlab& from) {
  ashlar_shm& arena = *view.arena;
  const Bytes old = moving.data_offset();
  const std::uint32_t old_slot = from->slot_at(old);
  if (old_slot == from->info().capacity) return false;
  const HeldSlab to = hold_slab_with_room(view, from->size_class_index(), Room::but_no_new_slab);
  if (!to) return false;
  const std::uint32_t slot = to.free_slot();
  const Bytes at = to.offset_of(slot);
  const Change change(view, index, old, at);
  to->take(slot);
  std::memcpy(arena.data + at, arena.data + old, from->info().slot_bytes);
  const HandleEntry moved(HandleEntry::kLive, moving.generation(), at);
  if (!arena.handle_word(index)->compare_exchange_strong(moving, moved)) {
    to->give(slot);
    return false;
  }
  from->give(old_slot);
  return true;
}

}  // namespace

int compact(ashlar_shm& arena, std::uint64_t budget_us, Bytes budget_bytes, ashlar_moved& moved,
            bool& more) {
  View* const view = view_for_handles(arena);
  if (view == nullptr) return errno;
  if (const int error = VictimWalk::claim(*view); error != 0) return error;
  ashlar_moved done{};
  const Deadline deadline(budget_us);
  VictimWalk walk(*view, deadline, budget_bytes);
  const int error = walk.begin(deadline, done.freed);
  more = error == 0 && walk.run([&](std::uint32_t index, HandleEntry entry, const SlabRef& slab) {
    HeldSlab from(arena, view->lane, slab.first());
    if (!from) return VictimWalk::Next::go_on;
    HandleEntry moving;
    const bool begun = begin_move(arena, index, entry, moving);
    if (begun && move(*view, index, moving, from)) {
      done.objects++;
      done.bytes += slab.info().slot_bytes;
      walk.spend(slab.info().slot_bytes);
    } else {
      if (begun) cancel_move(arena, index, moving);
      done.skipped++;
    }
    done.freed += retire_victim(arena, from);
    return VictimWalk::Next::go_on;
  });
  VictimWalk::let_go(*view, done, moved);
  return error;
}

int compact_while_quiet(ashlar_shm& arena, std::uint64_t budget_us, ashlar_moved& moved,
                        bool& more) {
  View* const view = view_for_handles(arena);
  if (view == nullptr) return errno;
  recover_dead(arena);
  drain_news(*view);
  const int error = compact(arena, budget_us, SIZE_MAX, moved, more);
  if (error != EBUSY) return error;
  more = false;
  look_at_memory(*view);
  return 0;
}

bool begin_move(const ashlar_shm& arena, std::uint32_t index, HandleEntry entry,
                HandleEntry& moving) {
  HandleWord& word = *arena.handle_word(index);
  moving = entry.with(HandleEntry::kMoving);
  if (!word.compare_exchange_strong(entry, moving)) return false;
  if (!is_pinned(arena, index)) return true;
  cancel_move(arena, index, moving);
  return false;
}

void cancel_move(const ashlar_shm& arena, std::uint32_t index, HandleEntry moving) {
  arena.handle_word(index)->compare_exchange_strong(moving, moving.with(HandleEntry::kLive));
}

}  // namespace ashlar::shm
