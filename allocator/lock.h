// SPDX-License-Identifier: MIT
// L1 · lock: a futex lock of one word, for the rare paths.
//
// What:    spins for a moment, then sleeps in the kernel. Constant-initialised, never allocates.
// Fork:    no lock is held across fork on purpose, and no fork handler takes one. A child of a
//          multi-threaded process may inherit a lock held by a thread that it does not have;
//          Heap::after_fork_in_child() calls reset() on each, and a waiter that finds itself in
//          an unannounced child (raw clone) does the same: see Heap::repair_if_forked().
// Threads: any. Not for signal handlers that may interrupt the holder.
#pragma once

#include <atomic>
#include <cstdint>

#include "os.h"

namespace ashlar {

class Lock {
 public:
  constexpr Lock() = default;
  Lock(const Lock&) = delete;

  bool try_lock() {
    std::uint32_t expected = kFree;
    // pairs with: unlock
    return word_.compare_exchange_strong(expected, kHeld, std::memory_order_acquire);
  }

  // Calls `stuck` before each sleep; when it returns true the lock is tried afresh at once.
  template <class Stuck>
  void lock(Stuck&& stuck) {
    for (int spin = 0; spin < kSpins; spin++) {
      if (try_lock()) return;
      os::pause();
    }
    // pairs with: unlock
    while (word_.exchange(kContended, std::memory_order_acquire) != kFree) {
      if (!stuck()) os::futex_wait(word_, kContended);
    }
  }
  void lock() {
    lock([] { return false; });
  }

  void unlock() {
    // pairs with: lock, try_lock
    if (word_.exchange(kFree, std::memory_order_release) == kContended) os::futex_wake_one(word_);
  }

  // Only in a child where the holder does not exist.
  void reset() { word_.store(kFree); }

 private:
  enum : std::uint32_t { kFree, kHeld, kContended };
  static constexpr int kSpins = 100;

  std::atomic<std::uint32_t> word_ = kFree;  // atomic: any thread → any thread
};

}  // namespace ashlar
