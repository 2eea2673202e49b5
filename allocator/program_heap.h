// SPDX-License-Identifier: MIT
// L4 · program_heap: heaps that the program makes, for objects that live and die together.
//
// What:    a heap is a lane without a thread: slabs of its own behind a lock, and large blocks that
//          the unit table knows as its own. Destroying it gives all of them back.
// How:     usually in the process's arena. Its tag has a bit that no lane's has, so free() of its
//          objects leaves the hit path, and gives them to the heap at once: nothing of a heap ever
//          waits in a magazine, and so nothing is left there when the heap is destroyed.
//          With pages from the program, in an arena of its own; then only the heap knows them.
//          The record of a heap is a page that is used again and never given back, so that a late
//          use of a destroyed heap is seen, and a late notification finds an inbox.
// Threads: any. The lock is not held while memory is sought, nor while out_of_memory runs.
// Fork:    the child resets the locks; a heap whose slabs may be half changed is repaired by its
//          next use. One that was being made or destroyed by another thread is lost.
#pragma once

#include <atomic>

#include "arena.h"
#include "ashlar/ashlar.h"
#include "lock.h"

namespace ashlar {

// How a heap's record begins: what readers in other processes look at.
struct ProgramHeapHead {
  LaneSlabs slabs;                    // must come first, see Arena::lane_at; empty with own pages
  std::atomic<std::uint64_t> number;  // atomic: who makes or destroys it → all; 0: there is none
};

class alignas(kPageBytes) ProgramHeap {
 public:
  // The heap behind a handle; aborts when it is none, or not any more.
  static ProgramHeap& of(ashlar_heap* handle, const char* caller);
  ashlar_heap* handle() { return reinterpret_cast<ashlar_heap*>(this); }

  // What is done to memory that is about to be an object, under the heap's lock.
  struct Prepare {
    void (*call)(void* object, const void* argument);  // null: nothing
    const void* argument;
  };
  // `alignment` is a power of two. Null and errno when memory is out.
  void* take(Bytes bytes, Bytes alignment, Prepare prepare = {});
  // Aborts when no object of this heap starts there, like the next two.
  void give(void* p, const char* caller);
  void* resize(void* p, Bytes bytes, const char* caller);
  Bytes usable_bytes(const void* p, const char* caller) const;
  void count(ashlar_heap_stats& stats) const;

  // What reports tell of a heap.
  struct Account {
    std::uint64_t number = 0;    // of the heaps that the process made, the how manieth
    bool has_own_pages = false;  // not in the process's arena
    ashlar_heap_stats held = {};
    Bytes resident = 0;  // of held.active; measured
  };

  // Calls work(arena, slabs) under the lock.
  template <class Work>
  void with_slabs(Work&& work);

 private:
  friend class ProgramHeaps;
  class Locked;
  enum class State : std::uint32_t { none, alive, destroyed };

  bool is_in_own_arena() const { return home_ != &arena_of_process(); }
  static Arena& arena_of_process();
  LaneSlabs& slabs() const { return *slabs_; }
  bool settle_in(const os::Region& region);
  void* try_take(ClassIndex c, PageCount pages, Bytes alignment, Prepare prepare);
  void acquire();
  bool try_acquire();
  void release() { lock_.unlock(); }
  bool make_room(std::uint32_t seen, PageCount pages, Bytes alignment);
  bool has(const void* p, Bytes& bytes) const;
  [[noreturn, gnu::cold]] void reject(const void* p, const char* caller) const;
  bool tend(Arena::Purge which, Bytes& bytes);
  void tend_sometimes();
  void clear();
  Account account() const;

  ProgramHeapHead head_;                    // must come first
  std::atomic<State> state_ = State::none;  // atomic: who makes or destroys it → all
  Lock lock_;
  bool half_changed_ = false;   // lock: lock_; its last holder is gone, see Fork above
  std::uint32_t calls_ = 0;     // lock: lock_; to look at the clock only now and then
  std::uint64_t due_ms_ = 0;    // lock: lock_; when to look for idle pages
  LaneSlabs* slabs_ = nullptr;  // const while alive, like the next five
  Arena* home_ = nullptr;       // where its pages are
  Arena own_arena_;             // home_, where the program brings them
  os::PageSource source_;
  os::Region region_;  // of own_arena_
  ashlar_heap_policy policy_ = {};
  ProgramHeap* next_ = nullptr;         // const: the list of all records
  ProgramHeap* next_unused_ = nullptr;  // lock: ProgramHeaps::unused_lock_
};

class ProgramHeaps {
 public:
  constexpr ProgramHeaps() = default;

  // Null and errno: ENOMEM, or EINVAL where the region will not do.
  ProgramHeap* create(const ashlar_heap_policy& policy);
  ProgramHeap* create_in(std::byte* memory, Bytes bytes);
  void destroy(ashlar_heap* handle);

  // Takes over what others freed, and purges. Heaps that are in use at the moment are left alone.
  // True if there was something to do, or may be.
  bool tend(Arena::Purge which, Bytes& bytes);
  void after_fork_in_child();

  // Calls visit(ProgramHeap::Account) for each heap, the youngest record first. Returns how many
  // were left out, because others held their locks all the while. Async-signal-safe.
  template <class Visit>
  std::uint32_t for_each(Visit&& visit) const;

 private:
  ProgramHeap* take_record();
  void give_record(ProgramHeap& record);

  std::atomic<ProgramHeap*> all_ = nullptr;  // atomic: take_record pushes → all
  std::atomic<std::uint64_t> made_ = 0;      // atomic: any; heaps so far
  Lock unused_lock_;
  ProgramHeap* unused_ = nullptr;  // lock: unused_lock_
};

extern constinit ProgramHeaps program_heaps;

template <class Work>
void ProgramHeap::with_slabs(Work&& work) {
  acquire();
  work(*home_, slabs());
  release();
}

template <class Visit>
std::uint32_t ProgramHeaps::for_each(Visit&& visit) const {
  std::uint32_t left_out = 0;
  // pairs with: take_record
  for (ProgramHeap* h = all_.load(std::memory_order_acquire); h != nullptr; h = h->next_) {
    if (h->state_.load() != ProgramHeap::State::alive) continue;
    if (!h->try_acquire()) {
      left_out++;
      continue;
    }
    // Its pages may be the program's again, once it is destroyed.
    const bool alive = h->state_.load() == ProgramHeap::State::alive;
    const ProgramHeap::Account account = alive ? h->account() : ProgramHeap::Account{};
    h->lock_.unlock();
    if (alive) visit(account);
  }
  return left_out;
}

}  // namespace ashlar
