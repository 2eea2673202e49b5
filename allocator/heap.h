// SPDX-License-Identifier: MIT
// L4 · heap: the process's one arena, and which thread has which lane in it.
//
// What:    creates the arena at the first malloc, leases lanes to threads, takes them back when
//          threads end, keeps the process alive across fork, and makes room when the arena is full.
// How:     a lane outlives its thread: it goes to a pool with its slabs and is leased again, last
//          in first out. A thread earns a lane by using the allocator often, and a new one, where
//          there are as many as processors, by using it much: until then, and after its lane is
//          gone (destructors that run late), it works without one. Its mallocs are served one slot
//          at a time from a shared lane under a lock, its frees are remote frees. So 10,000 threads
//          that do little cost little, and there is nothing that a thread must set up before it may
//          allocate or tear down before it ends.
// Fork:    nothing is locked or prepared. The child keeps its own lane; lanes of threads that it
//          does not have are marked in the fork handler, and repaired by whoever leases them next.
//          Where no handler ran (raw clone) those lanes stay leased, and are lost to the child; it
//          takes over locks that nobody is left to release (lock).
// Threads: any.
// Not here: the hit paths (thread_cache), what a lane is made of (arena, thread_cache).
#pragma once

#include <atomic>

#include "arena.h"
#include "lock.h"
#include "thread_cache.h"

namespace ashlar {

class Heap {
 public:
  constexpr Heap() = default;

  // This thread's lane; leases one if it has earned it. Null: work without one.
  Lane* lane_for_this_thread() { return this_lane() != nullptr ? this_lane() : lease_slow(); }
  // One slot for a thread without a lane, from a slab and not from a gap, so that it is aligned as
  // its size is. Null and errno when memory is out.
  void* take_shared(ClassIndex c);

  // A large object. Null and errno when memory is out. `zero`: its bytes are known to be zero.
  void* take_large(Bytes bytes, Bytes alignment, bool& zero);
  void* take_large(Bytes bytes);
  // False: no large object starts there.
  [[nodiscard]] bool give_large(void* p);
  // Resizes a large object where it is, or by moving its pages. Null: copy it yourself.
  void* resize_large(void* p, Bytes old_bytes, Bytes new_bytes);

  // Finds or adds room for a block that did not fit when the arena had `seen` chunks. False:
  // memory is out.
  bool make_room(std::uint32_t seen, PageCount pages, Bytes alignment);

  // Makes the process's arena if there is none yet. False: memory is out.
  bool ensure_arena();

  // Takes over what was freed into slabs that no thread looks after. True if there was anything.
  bool drain_pool();
  // Calls work(Lane&) for lanes without a thread until it returns true.
  template <class Work>
  void for_each_pooled(Work&& work) {
    pool_lock_.lock();
    for (Lane* lane = pool_; lane != nullptr; lane = lane->next_pooled) {
      if (!lane->orphaned && work(*lane)) break;
    }
    pool_lock_.unlock();
  }
  // A slab with room of a lane without a thread becomes this lane's. False: there is none, as far
  // as it was looked.
  bool adopt_slab(Lane& lane, ClassIndex c);
  // A slot of a slab that no thread looks after; see Arena::take_dense.
  void* take_dense_from_pool(ClassIndex c);
  // Calls work(LaneSlabs&) for the slabs that threads without a lane share.
  template <class Work>
  void with_shared_slabs(Work&& work) {
    shared_lock_.lock();
    if (shared_ != nullptr && !shared_orphaned_) work(*shared_);
    shared_lock_.unlock();
  }

  // From the library's constructor: thread and fork handlers.
  void start();
  void after_fork_in_child();
  // The current thread ends, or its late destructors begin.
  void end_this_thread();

  // Calls visit(Lane&) for every lane there is, leased or pooled.
  template <class Visit>
  void for_each_lane(Visit&& visit) const {
    // pairs with: add_lane
    for (Lane* l = lanes_.load(std::memory_order_acquire); l != nullptr; l = l->next_lane)
      visit(*l);
  }
  bool exists() const { return ready_.load(std::memory_order_acquire); }  // pairs: ensure_arena

 private:
  [[gnu::noinline]] void* take_new_large(Bytes bytes, Bytes alignment, bool& zero);
  [[gnu::noinline]] void* take_large_slow(Bytes bytes);
  void* take_large_with_room(Bytes bytes);
  Lane* lease_slow();
  bool earns_lane();
  Lane* lease();
  bool may_add_lane();
  Lane* add_lane();
  void release_lane_of_this_thread();
  LaneSlabs* shared_lane();
  void watch_this_thread();
  void recover(Lane& lane);

  Lock create_lock_;
  Lock pool_lock_;
  Lock shared_lock_;
  std::atomic<bool> ready_ = false;              // atomic: who created the arena → all
  std::atomic<Lane*> lanes_ = nullptr;           // atomic: add_lane pushes → all
  std::atomic<std::uint32_t> lane_count_ = 0;    // atomic: who adds one → who may
  std::atomic<std::uint32_t> processors_ = 0;    // atomic: start → who adds a lane
  Lane* pool_ = nullptr;                         // lock: pool_lock_
  LaneSlabs* shared_ = nullptr;                  // lock: shared_lock_
  bool shared_orphaned_ = false;                 // lock: shared_lock_
  std::atomic<bool> shared_by_threads_ = false;  // atomic: any → any; a lane was leased before
};

extern constinit Heap heap;

}  // namespace ashlar
