// SPDX-License-Identifier: MIT
#include "moves.h"

#include <cerrno>
#include <cstring>

#include "views.h"

namespace ashlar::shm {

namespace {

// The calling thread's view, if the block at p should be moved and its cursor has a place for it.
View* view_with_place(ashlar_shm& arena, const void* p, ClassIndex& c) {
  if (hint(arena, p) == 0) return nullptr;
  const Bytes bytes = bytes_at(arena, p);
  if (bytes == 0) {
    errno = EINVAL;
    return nullptr;
  }
  if (bytes > kMaxSlotBytes) return nullptr;
  c = class_for(bytes);
  View* const view = view_for_thread(arena);
  return view != nullptr && refill_densely(*view, c) ? view : nullptr;
}

}  // namespace

std::uint8_t hint(const ashlar_shm& arena, const void* p) {
  return arena.plan.score_at(arena.data_offset(p));
}

void* move_block(ashlar_shm& arena, void* p) {
  ClassIndex c{};
  if (view_with_place(arena, p, c) == nullptr) return nullptr;
  void* const to = take(arena, place_of(c));
  std::memcpy(to, p, size_class(c).slot_bytes);
  give(arena, p);
  return to;
}

// Copied and entered in one go with the take, so that a death on the way leaks nothing new.
Offset move_published(ashlar_shm& arena, std::atomic<Offset>& slot) {
  struct Move {
    ashlar_shm& arena;
    Offset from;
    Bytes bytes;
  };
  Move move{arena, slot.load(), 0};
  void* const from = arena.pointer(move.from);
  ClassIndex c{};
  if (from == nullptr || view_with_place(arena, from, c) == nullptr) return 0;
  move.bytes = size_class(c).slot_bytes;
  const auto publish = [](std::atomic<Offset>& at, Offset block, void* context) {
    Move& m = *static_cast<Move*>(context);
    std::memcpy(m.arena.pointer(block), m.arena.pointer(m.from), m.bytes);
    return replace(m.arena, at, m.from, block);
  };
  const Offset to = take_into(arena, move.bytes, slot, publish, &move);
  if (to != 0) give(arena, from);
  return to;
}

}  // namespace ashlar::shm
