// SPDX-License-Identifier: MIT
// L5 · pool_handles: a pool whose objects may be moved while nobody has them locked.
//
// What:    a handle names an entry of the pool's table, and the entry says where the object is.
//          lock() gives the address, and until unlock() the object stays there.
// How:     an entry counts its locks. Who locks counts first and then looks at the entry; who means
//          to move the object says so in the entry first and then looks at the count: one of them
//          sees the other. A lock that finds a move under way puts the entry back, and the move
//          comes to nothing: no lock ever waits.
//          An object that is freed while it is locked goes with the last unlock.
//          Moves are the pool's (movable_pool); an object's tag there is its entry's index.
// Table:   segments, each as large as all before it and a little more. They stay until the pool
//          goes, so that who has an old handle may look at its entry at any time.
// Threads: any. Not for signal handlers.
// Fork:    in the child, what other threads had locked stays locked. Moves that they were about to
//          make end with the entry: the place that it names is the object's.
#pragma once

#include <atomic>
#include <bit>

#include "handle_entry.h"
#include "movable_pool.h"

namespace ashlar {

class PoolHandles {
 public:
  // The handles of a pool; aborts when it is none, or one without.
  static PoolHandles& of(ashlar_pool* pool, const char* caller);

  // A pool with handles. Null and errno.
  static MovablePool* create();
  // With the pool and all objects.
  void destroy();

  // 0 and errno.
  std::uint64_t take(Bytes bytes);
  // These are false, null or 0 where the handle's object was given, or never was.
  [[nodiscard]] bool give(Handle handle);
  void* lock(Handle handle);
  // False also where it is not locked.
  [[nodiscard]] bool unlock(Handle handle);
  Bytes usable_bytes(Handle handle);

 private:
  using EntryWord = HandleEntry<40>;  // 16 TiB

  struct Entry {
    std::atomic<EntryWord> word;       // atomic: any → any
    std::atomic<std::uint32_t> locks;  // atomic: any → who moves or gives
    std::atomic<std::uint32_t> next;   // of the list of unused entries; index + 1, 0: none
  };

  static ashlar_verdict relocate(void* handles, void* from, void* to, std::size_t bytes,
                                 std::uint64_t tag);
  static bool names(void* handles, std::uint64_t tag, const void* object);
  static Bytes position(const void* object);

  // At most kSegments.
  static std::uint32_t segment_of(std::uint32_t index) {
    const std::uint64_t turn = std::uint64_t{index} / kFirstEntries + 1;
    return static_cast<std::uint32_t>(std::bit_width(turn)) - 1;
  }
  Entry* find(std::uint32_t index) const;
  bool is_stale(EntryWord word, Handle handle) const {
    return word.generation() != handle.generation || !word.is_usable();
  }
  void end_lock(Entry& entry, std::uint32_t index);
  void reclaim(Entry& entry, std::uint32_t index);
  std::uint32_t take_index();
  std::uint32_t add_index();
  void give_index(std::uint32_t index);

  static constexpr std::uint32_t kFirstEntries = 64;  // of the first segment; doubles from there
  static constexpr std::uint32_t kSegments = 26;      // together as many as a handle can name

  MovablePool* pool_ = nullptr;                   // const
  std::atomic<Entry*> segments_[kSegments] = {};  // atomic: who needs one first → all
  std::atomic<std::uint32_t> end_ = 0;  // atomic: any → any; entries that were ever used
  // Unused entries: the first's index + 1, and above it how often that changed, so that who was
  // slow does not take the list for the same (ABA).
  std::atomic<std::uint64_t> unused_ = 0;  // atomic: any → any
};

}  // namespace ashlar
