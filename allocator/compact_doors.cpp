// SPDX-License-Identifier: MIT
// L6 · the doors to compaction (ashlar/compact.h); compact has the rooms.
#include "ashlar/compact.h"

#include <cerrno>

#include "compact.h"
#include "door.h"
#include "maintenance.h"
#include "movable_pools.h"
#include "notices.h"
#include "pool_handles.h"

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

namespace {

ashlar_pool* handle_of_new(MovablePool* pool) {
  if (pool == nullptr) return nullptr;
  movable_pools.add(*pool);
  return pool->handle();
}

}  // namespace

ASHLAR_DOOR ashlar_pool* ashlar_pool_create(ashlar_relocate* relocate, void* context) {
  return handle_of_new(MovablePool::create(relocate, context));
}

ASHLAR_DOOR void ashlar_pool_destroy(ashlar_pool* pool) {
  MovablePool& p = MovablePool::of(pool, "ashlar_pool_destroy");
  movable_pools.remove(p);
  if (p.names() == nullptr) return p.destroy();
  PoolHandles::of(pool, "ashlar_pool_destroy").destroy();
}

ASHLAR_DOOR void* ashlar_pool_malloc(ashlar_pool* pool, size_t bytes, uint64_t tag) {
  return MovablePool::with_tags(pool, "ashlar_pool_malloc").take(bytes, tag);
}

ASHLAR_DOOR void ashlar_pool_free(ashlar_pool* pool, void* object) {
  MovablePool& p = MovablePool::with_tags(pool, "ashlar_pool_free");
  if (object != nullptr) p.give(object, "ashlar_pool_free");
}

ASHLAR_DOOR size_t ashlar_pool_usable_size(ashlar_pool* pool, const void* object) {
  const MovablePool& p = MovablePool::with_tags(pool, "ashlar_pool_usable_size");
  return object == nullptr ? 0 : p.usable_bytes(object, "ashlar_pool_usable_size");
}

ASHLAR_DOOR uint64_t ashlar_pool_tag(ashlar_pool* pool, const void* object) {
  return MovablePool::with_tags(pool, "ashlar_pool_tag").tag(object, "ashlar_pool_tag");
}

ASHLAR_DOOR int ashlar_pool_get_stats(ashlar_pool* pool, ashlar_heap_stats* stats) {
  MovablePool::of(pool, "ashlar_pool_get_stats").count(*stats);
  return 0;
}

ASHLAR_DOOR int ashlar_pool_pin(ashlar_pool* pool, void* object) {
  if (MovablePool::with_tags(pool, "ashlar_pool_pin").pin(object, "ashlar_pool_pin")) return 0;
  errno = EBUSY;
  return -1;
}

ASHLAR_DOOR void ashlar_pool_unpin(ashlar_pool* pool, void* object) {
  MovablePool::with_tags(pool, "ashlar_pool_unpin").unpin(object, "ashlar_pool_unpin");
}

ASHLAR_DOOR ptrdiff_t ashlar_pool_begin(ashlar_pool* pool, uint64_t budget_us, size_t budget_bytes,
                                        ashlar_move* moves, size_t n) {
  bool busy = false;
  const size_t count = MovablePool::with_tags(pool, "ashlar_pool_begin")
                           .begin(budget_us, budget_bytes, moves, n, busy);
  if (!busy) return static_cast<ptrdiff_t>(count);
  errno = EBUSY;
  return -1;
}

ASHLAR_DOOR int ashlar_pool_should_stop(ashlar_pool* pool) {
  return MovablePool::with_tags(pool, "ashlar_pool_should_stop").should_stop();
}

ASHLAR_DOOR void ashlar_pool_end(ashlar_pool* pool, const ashlar_move* moves, size_t n,
                                 ashlar_moved* moved) {
  MovablePool::with_tags(pool, "ashlar_pool_end").end(moves, n, *moved);
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

ASHLAR_DOOR int ashlar_quiescent(uint64_t budget_us, ashlar_moved* moved) {
  return movable_pools.compact(budget_us, *moved);
}

// --- handles ------------------------------------------------------------------------------------

namespace {

template <class T>
T or_stale(T result) {
  if (!result) errno = ESTALE;
  return result;
}

}  // namespace

ASHLAR_DOOR ashlar_pool* ashlar_pool_create_for_handles(void) {
  return handle_of_new(PoolHandles::create());
}

ASHLAR_DOOR ashlar_handle ashlar_pool_handle_alloc(ashlar_pool* pool, size_t bytes) {
  return PoolHandles::of(pool, "ashlar_pool_handle_alloc").take(bytes);
}

ASHLAR_DOOR int ashlar_pool_handle_free(ashlar_pool* pool, ashlar_handle handle) {
  PoolHandles& handles = PoolHandles::of(pool, "ashlar_pool_handle_free");
  return handle == 0 || or_stale(handles.give(Handle::of(handle))) ? 0 : -1;
}

ASHLAR_DOOR void* ashlar_pool_handle_lock(ashlar_pool* pool, ashlar_handle handle) {
  return or_stale(PoolHandles::of(pool, "ashlar_pool_handle_lock").lock(Handle::of(handle)));
}

ASHLAR_DOOR int ashlar_pool_handle_unlock(ashlar_pool* pool, ashlar_handle handle) {
  if (PoolHandles::of(pool, "ashlar_pool_handle_unlock").unlock(Handle::of(handle))) return 0;
  errno = EINVAL;
  return -1;
}

ASHLAR_DOOR size_t ashlar_pool_handle_size(ashlar_pool* pool, ashlar_handle handle) {
  return or_stale(
      PoolHandles::of(pool, "ashlar_pool_handle_size").usable_bytes(Handle::of(handle)));
}

// --- notices ------------------------------------------------------------------------------------

ASHLAR_DOOR int ashlar_set_notify(ashlar_notify* notify, void* context) {
  notices.set(notify, context);
  if (notify == nullptr || maintenance.watch_memory()) return 0;
  errno = ENOTSUP;
  return -1;
}
