// SPDX-License-Identifier: MIT
//
// Pools of objects with handles (compact.h), for C++:
//
//   ashlar::handle_pool pool;
//   ashlar::handle<Quote> quote = pool.make_movable<Quote>(…);
//   if (const auto q = pool.lock(quote)) q->bid = 3;   // has an address, and stays there
//   pool.compact(200);                                 // 200 µs; all that nobody has locked moves
//
// Thread-safe; no lock waits. What the pool holds goes with it, without destructors.
#ifndef ASHLAR_COMPACT_HPP
#define ASHLAR_COMPACT_HPP

#include <ashlar/ashlar.h>
#include <ashlar/handle.hpp>

namespace ashlar {

template <>
struct handle_calls<ashlar_pool> {
  static constexpr std::size_t most_bytes = 32768 - 16;  // larger ones would never move
  static constexpr std::size_t most_alignment = 16;
  static constexpr auto* alloc = ashlar_pool_handle_alloc;
  static constexpr auto* free = ashlar_pool_handle_free;
  static constexpr auto* lock = ashlar_pool_handle_lock;
  static constexpr auto* unlock = ashlar_pool_handle_unlock;
};

class handle_pool : public has_handles<handle_pool, ashlar_pool> {
 public:
  handle_pool() : pool_(ashlar_pool_create_for_handles()) {
    if (pool_ == nullptr) throw std::bad_alloc();
  }
  handle_pool(const handle_pool&) = delete;
  handle_pool& operator=(const handle_pool&) = delete;
  // Nobody may have its objects locked any more.
  ~handle_pool() { ashlar_pool_destroy(pool_); }

  ashlar_pool* get() const noexcept { return pool_; }
  ashlar_heap_stats stats() const noexcept {
    ashlar_heap_stats result;
    ashlar_pool_get_stats(pool_, &result);
    return result;
  }

  // Moves objects together, for so many microseconds at most. True: there may be more to do. False
  // also while another thread is at it.
  bool compact(std::uint64_t budget_us = UINT64_MAX, ashlar_moved* done = nullptr) const noexcept {
    ashlar_moved ours = {};
    return ashlar_pool_compact(pool_, budget_us, SIZE_MAX, done != nullptr ? done : &ours) == 1;
  }

 private:
  ashlar_pool* const pool_;
};

}  // namespace ashlar

#endif
