// SPDX-License-Identifier: MIT
#include "hand_pass.h"

#include <algorithm>
#include <cerrno>

#include "compaction.h"
#include "victim_walk.h"

namespace ashlar::shm {

namespace {

// How often to look again at a slab that is held: longer than any work on it takes.
constexpr int kSpins = 40;

bool is_open(const ashlar_shm& arena) {
  const View& view = view_of(arena);
  return view.tag != 0 && arena.hand_pass.lane.load() == view.lane + 1 &&
         arena.state().compactor.load() == view.lane + 1;
}

// Proposes that the object moves, if it may and there is a place for it. False: it is not proposed.
bool propose(View& view, std::uint32_t index, HandleEntry entry, const SlabRef& slab,
             ashlar_move& move) {
  ashlar_shm& arena = *view.arena;
  HandleEntry moving;
  if (slab.slot_at(entry.data_offset()) == slab.info().capacity) return false;
  if (!begin_move(arena, index, entry, moving)) return false;
  const std::uint32_t keeper = keep_slot(view, slab.size_class_index());
  if (keeper == kNone) {
    cancel_move(arena, index, moving);
    return false;
  }
  const Bytes to = arena.handle_word(keeper)->load().data_offset();
  const std::uint64_t handle = Handle{index, entry.generation()}.word();
  move = {arena.data + entry.data_offset(), arena.data + to, slab.info().slot_bytes, handle,
          ASHLAR_SKIP};
  HandPass& pass = arena.hand_pass;
  pass.move[pass.count++] = {handle, keeper};
  return true;
}

HeldSlab hold(View& view, Bytes data_offset) {
  const UnitIndex unit{static_cast<std::uint32_t>(data_offset / kUnitBytes)};
  for (int spin = 0; spin < kSpins; spin++) {
    if (HeldSlab slab(*view.arena, view.lane, unit); slab) return slab;
    os::pause();
  }
  return {};
}

// The copy is the object from now on. False: it is not, since somebody locked or freed the object,
// or has one of the slabs.
bool commit(View& view, const HandPass::Move& move, ashlar_moved& moved) {
  ashlar_shm& arena = *view.arena;
  const Handle handle = Handle::of(move.handle);
  HandleWord& word = *arena.handle_word(handle.index);
  HandleEntry moving = word.load();
  if (moving.state() != HandleEntry::kMoving || moving.generation() != handle.generation) {
    return false;
  }
  const Bytes old = moving.data_offset();
  const Bytes at = arena.handle_word(move.keeper)->load().data_offset();
  HeldSlab from = hold(view, old);
  const HeldSlab to = hold(view, at);
  if (!from || !to) return false;
  const std::uint32_t old_slot = from->slot_at(old);
  const std::uint32_t slot = to->slot_at(at);
  if (old_slot == from->info().capacity || slot == to->info().capacity) return false;
  {
    const Change change(view, handle.index, old, at, move.keeper);
    free_keeper(arena, move.keeper, at);
    const HandleEntry there(HandleEntry::kLive, moving.generation(), at);
    if (!word.compare_exchange_strong(moving, there)) {
      to->give(slot);
      return false;
    }
    from->give(old_slot);
  }
  moved.objects++;
  moved.bytes += from->info().slot_bytes;
  moved.freed += retire_victim(arena, from);
  return true;
}

// Frees the object, unless somebody did so before.
void free_object(View& view, Handle handle, ashlar_moved& moved) {
  ashlar_shm& arena = *view.arena;
  const Bytes at = arena.handle_word(handle.index)->load().data_offset();
  if (free_handle(arena, handle) != 0) return;
  if (HeldSlab from = hold(view, at)) moved.freed += retire_victim(arena, from);
}

void settle(View& view, const HandPass::Move& move, ashlar_verdict verdict, ashlar_moved& moved) {
  ashlar_shm& arena = *view.arena;
  const Handle handle = Handle::of(move.handle);
  if (verdict == ASHLAR_FREED) {
    free_object(view, handle, moved);
  } else if (verdict != ASHLAR_COPIED || !commit(view, move, moved)) {
    const HandleEntry entry = arena.handle_word(handle.index)->load();
    const bool is_there = entry.generation() == handle.generation && entry.is_usable();
    if (is_there) cancel_move(arena, handle.index, entry.with(HandleEntry::kMoving));
    moved.skipped += is_there;
  }
  end_keeping(view, move.keeper);
}

}  // namespace

int begin_hand_pass(ashlar_shm& arena, std::uint64_t budget_us, Bytes budget_bytes,
                    ashlar_move* moves, std::size_t n, std::size_t& count) {
  View* const view = view_for_handles(arena);
  if (view == nullptr) return errno;
  if (const int error = VictimWalk::claim(*view); error != 0) return error;
  HandPass& pass = arena.hand_pass;
  pass.count = 0;
  pass.freed = 0;
  pass.deadline = Deadline(budget_us);
  VictimWalk walk(*view, pass.deadline, budget_bytes);
  // To the end: that nothing is proposed says that nothing is worth it.
  if (const int error = walk.begin(Deadline(), pass.freed); error != 0) {
    ashlar_moved unused{};
    VictimWalk::let_go(*view, {}, unused);
    return error;
  }
  pass.lane.store(view->lane + 1);
  const std::size_t most = std::min<std::size_t>(n, HandPass::kMoves);
  if (most != 0) {
    walk.run([&](std::uint32_t index, HandleEntry entry, const SlabRef& slab) {
      if (propose(*view, index, entry, slab, moves[pass.count])) {
        walk.spend(slab.info().slot_bytes);
      }
      return pass.count < most ? VictimWalk::Next::go_on : VictimWalk::Next::stop;
    });
  }
  count = pass.count;
  return 0;
}

int end_hand_pass(ashlar_shm& arena, const ashlar_move* moves, std::size_t n, ashlar_moved& moved) {
  HandPass& pass = arena.hand_pass;
  if (!is_open(arena) || n != pass.count) return EINVAL;
  for (std::size_t i = 0; i < n; i++) {
    if (moves[i].tag != pass.move[i].handle) return EINVAL;
  }
  View& view = view_of(arena);
  ashlar_moved done{};
  done.freed = pass.freed;
  for (std::size_t i = 0; i < n; i++) settle(view, pass.move[i], moves[i].verdict, done);
  pass.lane.store(0);
  VictimWalk::let_go(view, done, moved);
  return 0;
}

bool hand_pass_should_stop(const ashlar_shm& arena) {
  return !is_open(arena) || arena.hand_pass.deadline.is_over();
}

}  // namespace ashlar::shm
