// SPDX-License-Identifier: MIT
// L6 · the doors to compaction (ashlar/compact.h); compact has the rooms.
#include "ashlar/compact.h"

#include <cerrno>

#include "compact.h"
#include "door.h"
#include "movable_pool.h"

using namespace ashlar;

ASHLAR_DOOR unsigned ashlar_frag_hint(const void* p) { return compactor.hint(p); }

ASHLAR_DOOR void ashlar_frag_hint_batch(const void* const* objects, size_t n, uint8_t* scores) {
  compactor.renew_plan();
  for (size_t i = 0; i < n; i++) scores[i] = arena.score_of(objects[i]);
}

ASHLAR_DOOR void* ashlar_frag_move(void* p) {
  const int saved_errno = errno;
  void* const to = compactor.move(p);
  errno = saved_errno;
  return to;
}

// --- pools --------------------------------------------------------------------------------------

ASHLAR_DOOR ashlar_pool* ashlar_pool_create(ashlar_relocate* relocate, void* context) {
  MovablePool* const pool = MovablePool::create(relocate, context);
  return pool == nullptr ? nullptr : pool->handle();
}

ASHLAR_DOOR void ashlar_pool_destroy(ashlar_pool* pool) {
  MovablePool::of(pool, "ashlar_pool_destroy").destroy();
}

ASHLAR_DOOR void* ashlar_pool_malloc(ashlar_pool* pool, size_t bytes, uint64_t tag) {
  return MovablePool::of(pool, "ashlar_pool_malloc").take(bytes, tag);
}

ASHLAR_DOOR void ashlar_pool_free(ashlar_pool* pool, void* object) {
  MovablePool& p = MovablePool::of(pool, "ashlar_pool_free");
  if (object != nullptr) p.give(object, "ashlar_pool_free");
}

ASHLAR_DOOR size_t ashlar_pool_usable_size(ashlar_pool* pool, const void* object) {
  const MovablePool& p = MovablePool::of(pool, "ashlar_pool_usable_size");
  return object == nullptr ? 0 : p.usable_bytes(object, "ashlar_pool_usable_size");
}

ASHLAR_DOOR uint64_t ashlar_pool_tag(ashlar_pool* pool, const void* object) {
  return MovablePool::of(pool, "ashlar_pool_tag").tag(object, "ashlar_pool_tag");
}

ASHLAR_DOOR int ashlar_pool_pin(ashlar_pool* pool, void* object) {
  if (MovablePool::of(pool, "ashlar_pool_pin").pin(object, "ashlar_pool_pin")) return 0;
  errno = EBUSY;
  return -1;
}

ASHLAR_DOOR void ashlar_pool_unpin(ashlar_pool* pool, void* object) {
  MovablePool::of(pool, "ashlar_pool_unpin").unpin(object, "ashlar_pool_unpin");
}

ASHLAR_DOOR ptrdiff_t ashlar_pool_begin(ashlar_pool* pool, uint64_t budget_us, size_t budget_bytes,
                                        ashlar_move* moves, size_t n) {
  bool busy = false;
  const size_t count =
      MovablePool::of(pool, "ashlar_pool_begin").begin(budget_us, budget_bytes, moves, n, busy);
  if (!busy) return static_cast<ptrdiff_t>(count);
  errno = EBUSY;
  return -1;
}

ASHLAR_DOOR int ashlar_pool_should_stop(ashlar_pool* pool) {
  return MovablePool::of(pool, "ashlar_pool_should_stop").should_stop();
}

ASHLAR_DOOR void ashlar_pool_end(ashlar_pool* pool, const ashlar_move* moves, size_t n,
                                 ashlar_moved* moved) {
  MovablePool::of(pool, "ashlar_pool_end").end(moves, n, *moved);
}

ASHLAR_DOOR int ashlar_pool_compact(ashlar_pool* pool, uint64_t budget_us, size_t budget_bytes,
                                    ashlar_moved* moved) {
  MovablePool& p = MovablePool::of(pool, "ashlar_pool_compact");
  bool busy = false;
  if (!p.has_relocate()) {
    errno = EINVAL;
    return -1;
  }
  const bool more = p.compact(budget_us, budget_bytes, *moved, busy);
  if (!busy) return more;
  errno = EBUSY;
  return -1;
}
