// SPDX-License-Identifier: MIT
#include "movable_pools.h"

namespace ashlar {

constinit MovablePools movable_pools;

void MovablePools::add(MovablePool& pool) {
  lock_.lock();
  pool.next_ = first_;
  first_ = &pool;
  count_++;
  lock_.unlock();
}

void MovablePools::remove(MovablePool& pool) {
  lock_.lock();
  for (MovablePool** link = &first_; *link != nullptr; link = &(*link)->next_) {
    if (*link != &pool) continue;
    *link = pool.next_;
    if (turn_ == &pool) turn_ = pool.next_;
    count_--;
    break;
  }
  lock_.unlock();
}

bool MovablePools::compact(std::uint64_t budget_us, ashlar_moved& moved) {
  const std::uint64_t begin = os::now_us();
  lock_.lock();
  std::size_t left = count_;
  lock_.unlock();
  for (MovablePool* pool = on_turn(nullptr); pool != nullptr && left > 0; left--) {
    const std::uint64_t taken = os::now_us() - begin;
    if (taken >= budget_us) return true;
    bool busy = false;
    if (pool->has_relocate() && pool->compact(budget_us - taken, SIZE_MAX, moved, busy) && !busy) {
      return true;
    }
    pool = on_turn(pool);
  }
  return false;
}

// Whose turn it is, once that of `done` is over. Null: there are no pools.
MovablePool* MovablePools::on_turn(const MovablePool* done) {
  lock_.lock();
  if (turn_ == done && done != nullptr) turn_ = done->next_;
  if (turn_ == nullptr) turn_ = first_;
  MovablePool* const pool = turn_;
  lock_.unlock();
  return pool;
}

}  // namespace ashlar
