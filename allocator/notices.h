// SPDX-License-Identifier: MIT
// L4 · notices: what the program wants to be told, and by which function of its own.
//
// What:    one function with its context; see ashlar_set_notify. The program is told by whoever
//          knows: a pass over a pool by its thread (movable_pool), of memory by ours (maintenance).
// Threads: any. The function runs without locks of ours; the teller is in no critical section.
// Fork:    the child resets the lock, and keeps the function.
#pragma once

#include <atomic>

#include "ashlar/compact.h"
#include "lock.h"

namespace ashlar {

class Notices {
 public:
  constexpr Notices() = default;

  // Null: nobody wants any.
  void set(ashlar_notify* notify, void* context);
  bool are_wanted() const { return wanted_.load(std::memory_order_relaxed); }  // late is well
  void tell(const ashlar_notice& notice);
  void after_fork_in_child() { lock_.reset(); }

 private:
  std::atomic<bool> wanted_ = false;  // atomic: set → all
  Lock lock_;
  ashlar_notify* notify_ = nullptr;  // lock: lock_, like the next
  void* context_ = nullptr;
};

extern constinit Notices notices;

}  // namespace ashlar
