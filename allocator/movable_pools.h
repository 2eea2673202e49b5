// SPDX-License-Identifier: MIT
// L5 · movable_pools: all pools, for who offers a quiet moment and does not know them.
//
// What:    passes over one pool after the other. A pool that is not done goes on in the next
//          moment, and then the next one begins: none is left out, however short the moments are.
// Threads: any. No lock is held during a pass: who offers a moment vouches for the pools.
// Fork:    in the child the list is whole, whoever was changing it, since each change is one store;
//          the lock is taken over from a thread that is not there (lock).
#pragma once

#include "movable_pool.h"

namespace ashlar {

class MovablePools {
 public:
  constexpr MovablePools() = default;

  void add(MovablePool& pool);
  // Does nothing where it is not one of them.
  void remove(MovablePool& pool);
  // Passes over those that have a function, one after the other. True: there may be more to do.
  bool compact(std::uint64_t budget_us, ashlar_moved& moved);

 private:
  MovablePool* on_turn(const MovablePool* done);

  Lock lock_;
  MovablePool* first_ = nullptr;  // lock: lock_, like the next two
  MovablePool* turn_ = nullptr;   // whose passes go on; null: the first's
  std::size_t count_ = 0;
};

extern constinit MovablePools movable_pools;

}  // namespace ashlar
