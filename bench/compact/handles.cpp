// SPDX-License-Identifier: MIT
// compact-handles: what handles to objects of a pool cost, and how dense passes make it.
//
// What:    fills a pool with MIB of objects of mixed sizes and frees a random part. Prints ns to
//          make an object and to free one; to lock and unlock the same one again and again, and
//          1000 in turn, and a random one of all; density (allocated ÷ active) before and after
//          passes of BUDGET µs, and how long they took, by the clock and of the processor; and how
//          long another thread was kept meanwhile that locks objects, and makes and frees them.
// Usage:   compact-handles [MIB [PERCENT-KEPT [BUDGET]]]
#include <atomic>
#include <cstdio>
#include <cstring>
#include <thread>
#include <vector>

#include "../common.h"
#include "passes.h"

namespace {

using namespace ashlar::bench;

ashlar_pool* pool;

// Of the processor's time.
template <class Work>
double ns_each(std::size_t count, Work&& work) {
  const double begin = time_us(CLOCK_THREAD_CPUTIME_ID);
  for (std::size_t i = 0; i < count; i++) work(i);
  return (time_us(CLOCK_THREAD_CPUTIME_ID) - begin) * 1000 / static_cast<double>(count);
}

void lock_and_unlock(ashlar_handle handle) {
  // As a program would, it touches the object.
  *static_cast<volatile char*>(ashlar_pool_handle_lock(pool, handle)) = 1;
  ashlar_pool_handle_unlock(pool, handle);
}

// What a thread does that knows nothing of passes; its longest calls.
struct Bystander {
  const std::vector<ashlar_handle>& handles;
  std::atomic<bool> ends = false;
  std::vector<double> lock_us = {}, make_us = {};

  void run() {
    Random random(2);
    while (!ends) {
      double begin = now_us();
      lock_and_unlock(handles[random.below(handles.size())]);
      lock_us.push_back(now_us() - begin);
      begin = now_us();
      ashlar_pool_handle_free(pool, ashlar_pool_handle_alloc(pool, random.between(16, 512)));
      make_us.push_back(now_us() - begin);
    }
  }
};

}  // namespace

int main(int argc, char** argv) {
  const std::size_t mib = number_at(1, argc, argv, 256);
  const std::size_t percent_kept = number_at(2, argc, argv, 10);
  const std::uint64_t budget_us = number_at(3, argc, argv, 200);
  Random random(1);
  pool = ashlar_pool_create_for_handles();
  std::vector<std::size_t> sizes;
  for (std::size_t bytes = 0; bytes < mib * kMiB; bytes += sizes.back()) {
    sizes.push_back(random.between(16, 512));
  }
  std::vector<ashlar_handle> made(sizes.size()), kept, gone;
  std::printf("make, ns                     %.0f\n", ns_each(made.size(), [&](std::size_t i) {
                made[i] = ashlar_pool_handle_alloc(pool, sizes[i]);
              }));
  for (std::size_t i = 0; i < made.size(); i++) {
    std::memset(ashlar_pool_handle_lock(pool, made[i]), 1, sizes[i]);
    ashlar_pool_handle_unlock(pool, made[i]);
    (random.below(100) < percent_kept ? kept : gone).push_back(made[i]);
  }
  std::printf("free, ns                     %.0f\n",
              ns_each(gone.size(), [&](std::size_t i) { ashlar_pool_handle_free(pool, gone[i]); }));
  constexpr std::size_t kCalls = 10'000'000;
  const double same = ns_each(kCalls, [&](std::size_t) { lock_and_unlock(kept[0]); });
  const double turn = ns_each(kCalls, [&](std::size_t i) { lock_and_unlock(kept[i % 1000]); });
  const double any =
      ns_each(kCalls / 10, [&](std::size_t) { lock_and_unlock(kept[random.below(kept.size())]); });
  std::printf("lock and unlock, ns          %.1f; 1000 in turn %.1f; any %.0f\n", same, turn, any);

  Bystander bystander{kept};
  std::thread thread([&] { bystander.run(); });
  compact_and_print(pool, budget_us);
  bystander.ends = true;
  thread.join();
  print_times("locks meanwhile, µs", bystander.lock_us);
  print_times("made and freed meanwhile, µs", bystander.make_us);
  ashlar_pool_destroy(pool);
}
