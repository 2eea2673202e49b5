// SPDX-License-Identifier: MIT
// L1 · lock: a futex lock of one word, for the rare paths.
//
// What:    spins for a moment, then sleeps in the kernel. Constant-initialised, never allocates.
// Fork:    no lock is held across fork on purpose, and no fork handler takes one. A child of a
//          multi-threaded process may inherit a lock held by a thread that it does not have. The
//          word of a held lock names the generation of its process, and a waiter in a process of
//          another generation takes the lock over. After fork() the handler begins a new one, and
//          resets locks that are tried. After a raw clone none runs; there a wiped page tells.
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

  // True: taken over from a thread that exists in a parent process only. What the lock guards may
  // be half done.
  bool lock() {
    for (int spin = 0; spin < kSpins; spin++) {
      if (try_lock()) return false;
      os::pause();
    }
    return lock_slow();
  }

  [[nodiscard]] bool try_lock() {
    notice_clone();
    std::uint32_t expected = kFree;
    // pairs with: unlock
    return word_.compare_exchange_strong(expected, held(), std::memory_order_acquire);
  }

  // Once it says no, what the last holder did can be seen.
  bool is_held() const {
    return word_.load(std::memory_order_acquire) != kFree;  // pairs with: unlock
  }

  void unlock() {
    // pairs with: lock, lock_slow
    const std::uint32_t old = word_.exchange(kFree, std::memory_order_release);
    if ((old & kContended) != 0) os::futex_wake_one(word_);
  }

  // Only in a child where the holder does not exist.
  void reset() { word_.store(kFree); }

  // From the fork handler, which does not know all locks: what is held now was left behind. Where
  // the kernel has no marker for us, nobody else notices.
  static void note_fork() { generation_++; }
  // Lets waiters notice that this process is a copy: a page from os::map_fork_marker(), not 0.
  static void watch(std::atomic<std::uint32_t>* fork_marker) { fork_marker_.store(fork_marker); }

 private:
  // A held lock's word: 1, perhaps with kContended, and the generation above.
  enum : std::uint32_t { kFree = 0, kHeld = 1, kContended = 2, kGenerationShift = 2 };
  static constexpr int kSpins = 100;

  static std::uint32_t held() {
    // relaxed: it changes only while the process has one thread
    return kHeld | generation_.load(std::memory_order_relaxed) << kGenerationShift;
  }

  bool lock_slow() {
    for (;;) {
      std::uint32_t word = word_.load(std::memory_order_relaxed);  // checked by the exchange
      const std::uint32_t ours = held() | kContended;
      const bool orphaned = word != kFree && word >> kGenerationShift != ours >> kGenerationShift;
      if (word == kFree || orphaned) {
        // pairs with: unlock
        if (word_.compare_exchange_strong(word, ours, std::memory_order_acquire)) return orphaned;
      } else if (word == ours || word_.compare_exchange_strong(word, ours)) {
        os::futex_wait(word_, ours);
      }
    }
  }

  // Before a process takes its first lock, so that its own are never taken for inherited ones.
  static void notice_clone() {
    std::atomic<std::uint32_t>* const marker = fork_marker_.load();
    if (marker == nullptr || marker->load() != 0) return;
    std::uint32_t wiped = 0;
    if (marker->compare_exchange_strong(wiped, 1)) generation_++;
  }

  static inline constinit std::atomic<std::uint32_t> generation_ = 0;  // atomic: any → any
  static inline constinit std::atomic<std::atomic<std::uint32_t>*> fork_marker_ =
      nullptr;  // set once

  std::atomic<std::uint32_t> word_ = kFree;  // atomic: any thread → any thread
};

}  // namespace ashlar
