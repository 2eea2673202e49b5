// SPDX-License-Identifier: MIT
// L6 · the doors to what moves: blocks by hints, objects by handles and passes.
#include "compaction.h"
#include "doors.h"
#include "hand_pass.h"
#include "handles.h"
#include "moves.h"
#include "shortage.h"

using namespace ashlar;

// --- hints and moves ----------------------------------------------------------------------------

ASHLAR_PUBLIC unsigned ashlar_shm_frag_hint(ashlar_shm* arena, const void* p) {
  uint8_t score = 0;
  ashlar_shm_frag_hint_batch(arena, &p, 1, &score);
  return score;
}

ASHLAR_PUBLIC void ashlar_shm_frag_hint_batch(ashlar_shm* arena, const void* const* blocks,
                                              size_t n, uint8_t* scores) {
  if (arena != nullptr) arena->plan.renew(*arena);
  for (size_t i = 0; i < n; i++) scores[i] = arena != nullptr ? shm::hint(*arena, blocks[i]) : 0;
}

ASHLAR_PUBLIC void* ashlar_shm_frag_move(ashlar_shm* arena, void* p) {
  return shm::refused(arena) ? nullptr : shm::move_block(*arena, p);
}

ASHLAR_PUBLIC ashlar_off ashlar_shm_frag_move_at(ashlar_shm* arena, ashlar_off* slot) {
  if (shm::refused(arena) || shm::no_slot(arena, slot)) return 0;
  return shm::move_published(*arena, *reinterpret_cast<std::atomic<shm::Offset>*>(slot));
}

// --- handles ------------------------------------------------------------------------------------

ASHLAR_PUBLIC ashlar_handle ashlar_shm_handle_alloc(ashlar_shm* arena, size_t bytes) {
  const ashlar_handle handle = shm::alloc_handle(*arena, bytes);
  shm::look_if_grown(shm::view_of(*arena), handle == 0);
  return handle;
}
ASHLAR_PUBLIC int ashlar_shm_handle_free(ashlar_shm* arena, ashlar_handle handle) {
  if (handle == 0) return 0;
  if (shm::refused(arena)) return -1;
  return shm::result(shm::free_handle(*arena, shm::Handle::of(handle)));
}
ASHLAR_PUBLIC void* ashlar_shm_handle_lock(ashlar_shm* arena, ashlar_handle handle) {
  return shm::lock_handle(*arena, shm::Handle::of(handle));
}
ASHLAR_PUBLIC int ashlar_shm_handle_unlock(ashlar_shm* arena, ashlar_handle handle) {
  return shm::result(shm::unlock_handle(*arena, shm::Handle::of(handle)) ? 0 : EINVAL);
}
ASHLAR_PUBLIC size_t ashlar_shm_handle_size(ashlar_shm* arena, ashlar_handle handle) {
  return shm::bytes_of_handle(*arena, shm::Handle::of(handle));
}

// --- passes -------------------------------------------------------------------------------------

ASHLAR_PUBLIC int ashlar_shm_compact(ashlar_shm* arena, uint64_t budget_us, size_t budget_bytes,
                                     ashlar_moved* moved) {
  if (shm::refused(arena)) return -1;
  ashlar_moved unasked{};
  bool more = false;
  const int error =
      shm::compact(*arena, budget_us, budget_bytes, moved != nullptr ? *moved : unasked, more);
  return error == 0 ? more : shm::result(error);
}

ASHLAR_PUBLIC int ashlar_shm_quiescent(ashlar_shm* arena, uint64_t budget_us, ashlar_moved* moved) {
  if (shm::refused(arena)) return -1;
  ashlar_moved unasked{};
  bool more = false;
  const int error =
      shm::compact_while_quiet(*arena, budget_us, moved != nullptr ? *moved : unasked, more);
  return error == 0 ? more : shm::result(error);
}

ASHLAR_PUBLIC ptrdiff_t ashlar_shm_pass_begin(ashlar_shm* arena, uint64_t budget_us,
                                              size_t budget_bytes, ashlar_move* moves, size_t n) {
  if (shm::refused(arena)) return -1;
  if (moves == nullptr && n != 0) return shm::result(EINVAL);
  size_t count = 0;
  const int error = shm::begin_hand_pass(*arena, budget_us, budget_bytes, moves, n, count);
  return error == 0 ? static_cast<ptrdiff_t>(count) : shm::result(error);
}

ASHLAR_PUBLIC int ashlar_shm_pass_should_stop(ashlar_shm* arena) {
  return arena == nullptr || shm::hand_pass_should_stop(*arena);
}

ASHLAR_PUBLIC int ashlar_shm_pass_end(ashlar_shm* arena, const ashlar_move* moves, size_t n,
                                      ashlar_moved* moved) {
  if (shm::refused(arena)) return -1;
  if (moves == nullptr && n != 0) return shm::result(EINVAL);
  ashlar_moved unasked{};
  return shm::result(shm::end_hand_pass(*arena, moves, n, moved != nullptr ? *moved : unasked));
}

// --- notices ------------------------------------------------------------------------------------

ASHLAR_PUBLIC int ashlar_shm_set_notify(ashlar_shm* arena, ashlar_notify* notify, void* context) {
  if (shm::refused(arena)) return -1;
  arena->notices.set(notify, context);
  return 0;
}
