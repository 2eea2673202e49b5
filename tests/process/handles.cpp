// SPDX-License-Identifier: MIT
// Pools of objects with handles, from C++ and by the C calls.
#include <ashlar/compact.hpp>
#include <ashlar/shm.hpp>  // beside the other: they share the words

#include <atomic>
#include <vector>

#include "expect.h"

namespace {

struct Quote {
  long id;
  double bid, ask;
};

double density_without(const ashlar_stats& empty) {
  ashlar_stats now;
  ashlar_get_stats(&now);
  return static_cast<double>(now.allocated - empty.allocated) /
         static_cast<double>(now.active - empty.active);
}

}  // namespace

int main() {
  constexpr long kQuotes = 200'000;
  static_assert(std::atomic<ashlar::handle<Quote>>::is_always_lock_free);

  it("a pool that was thinned out gets dense, and handles lead to the same as before");
  ashlar_stats empty;
  ashlar_get_stats(&empty);
  {
    const ashlar::handle_pool pool;
    std::vector<ashlar::handle<Quote>> quotes;
    quotes.reserve(kQuotes);
    ashlar_get_stats(&empty);
    for (long id = 0; id < kQuotes; id++) {
      quotes.push_back(pool.make_movable<Quote>(Quote{id, 1, 2}));
    }
    const auto first = pool.lock(quotes[0]);
    for (long id = 0; id < kQuotes; id++) {
      if (id % 10 != 0) EXPECT(pool.free(quotes[id]), ==, true);
    }
    ashlar_moved moved{};
    while (pool.compact(500, &moved)) continue;
    EXPECT(moved.objects > kQuotes / 15, ==, true);
    EXPECT(moved.freed > 5 * moved.bytes, ==, true);
    EXPECT(density_without(empty) > 0.8, ==, true);  // the table included
    EXPECT(first->id, ==, 0);
    for (long id = 0; id < kQuotes; id++) {
      const auto quote = pool.lock(quotes[id]);
      EXPECT(static_cast<bool>(quote), ==, id % 10 == 0);
      if (quote) EXPECT(quote->id, ==, id);
    }
    EXPECT(pool.free(quotes[1]), ==, false);

    it("an object whose constructor throws leaves nothing");
    struct Thrower {
      explicit Thrower(int value) { throw value; }
    };
    ashlar_stats before, after;
    ashlar_get_stats(&before);
    int thrown = 0;
    try {
      pool.make_movable<Thrower>(7);
    } catch (int value) {
      thrown = value;
    }
    ashlar_get_stats(&after);
    EXPECT(thrown, ==, 7);
    EXPECT(after.allocated, ==, before.allocated);
  }

  it("the largest objects that may be made movable do move");
  {
    struct Largest {
      std::byte bytes[ashlar::handle_calls<ashlar_pool>::most_bytes];
    };
    const ashlar::handle_pool pool;
    std::vector<ashlar_handle> gone;
    for (int i = 0; i < 400; i++) {
      const auto object = pool.make_movable<Largest>();
      if (i % 4 != 0) gone.push_back(object.word);
    }
    for (const ashlar_handle h : gone) ashlar_pool_handle_free(pool.get(), h);
    ashlar_moved moved = {};
    pool.compact(UINT64_MAX, &moved);
    EXPECT(moved.objects > 10, ==, true);
  }

  it("the C calls say what is wrong");
  ashlar_pool* const pool = ashlar_pool_create_for_handles();
  const ashlar_handle h = ashlar_pool_handle_alloc(pool, 100);
  EXPECT(ashlar_pool_handle_size(pool, h) >= 100, ==, true);
  EXPECT(ashlar_pool_handle_unlock(pool, h), ==, -1);
  EXPECT(errno, ==, EINVAL);
  EXPECT(ashlar_pool_handle_lock(pool, h) != nullptr, ==, true);
  EXPECT(ashlar_pool_handle_unlock(pool, h), ==, 0);
  EXPECT(ashlar_pool_handle_free(pool, h), ==, 0);
  EXPECT(ashlar_pool_handle_free(pool, 0), ==, 0);
  errno = 0;
  EXPECT(ashlar_pool_handle_free(pool, h), ==, -1);
  EXPECT(errno, ==, ESTALE);
  for (const ashlar_handle gone : {h, ashlar_handle{0}, ~ashlar_handle{0}}) {
    errno = 0;
    EXPECT(ashlar_pool_handle_lock(pool, gone) == nullptr, ==, true);
    EXPECT(errno, ==, ESTALE);
    errno = 0;
    EXPECT(ashlar_pool_handle_size(pool, gone), ==, 0);
    EXPECT(errno, ==, ESTALE);
  }
  errno = 0;
  EXPECT(ashlar_pool_handle_alloc(pool, SIZE_MAX), ==, 0);
  EXPECT(errno, ==, ENOMEM);
  ashlar_pool_destroy(pool);
  ashlar_stats after;
  ashlar_get_stats(&after);
  EXPECT(after.allocated <= empty.allocated, ==, true);
  return verdict();
}
