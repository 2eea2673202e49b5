// SPDX-License-Identifier: MIT
// ashlar-bench-shm: a shared arena beside Boost.Interprocess and beside malloc.
//
//   LD_PRELOAD=build/release/libashlar.so build/release/bench/ashlar-bench-shm
//
// Each row runs all of them in turn, five rounds; shown are medians, in nanoseconds per operation.
// malloc is whatever is preloaded. Rows of one process count its CPU time; rows of two count wall
// time, and want two idle cores. Then what only the arena does: attaching, death, fsck, handles.
#include "shm_rows.h"

#include <ashlar/boost_interprocess.hpp>

#include <boost/interprocess/mem_algo/rbtree_best_fit.hpp>
#include <boost/interprocess/mem_algo/simple_seq_fit.hpp>
#include <boost/interprocess/sync/mutex_family.hpp>

namespace {

using namespace ashlar::bench;
namespace bi = boost::interprocess;

double median_us(int times, const std::function<double()>& run) {
  std::vector<double> values;
  for (int i = 0; i < times; i++) values.push_back(run() * 1e6);
  return median(values);
}

template <class Act>
double timed(Act&& act, clockid_t clock = CLOCK_MONOTONIC) {
  const double start = seconds(clock);
  act();
  return seconds(clock) - start;
}
template <class Act>
double worked(Act&& act) {
  return timed(act, CLOCK_PROCESS_CPUTIME_ID);
}

// 16 processes that hold 1 GiB among them, in slots of 1 KiB.
void deaths() {
  ashlar_shm* const arena = ashlar_shm_create_anonymous(1200 * kMiB, 0);
  const int fd = ashlar_shm_fd(arena);
  std::vector<pid_t> children;
  for (int i = 0; i < 16; i++) {
    int ready[2];
    if (pipe(ready) != 0) std::abort();
    const pid_t child = fork();
    if (child == 0) {
      ashlar_shm* const own = ashlar_shm_open_fd(fd, 0);
      for (std::size_t n = 0; n < 64 * 1000; n++) touch(ashlar_shm_malloc(own, 1024));
      if (write(ready[1], "", 1) != 1) _exit(1);
      for (;;) pause();
    }
    char byte;
    if (read(ready[0], &byte, 1) != 1) std::abort();
    children.push_back(child);
    close(ready[0]);
    close(ready[1]);
  }
  ashlar_shm_recover(arena);  // joins
  char why[200] = "";
  std::printf("| attach and detach | %.3g µs |\n", median_us(101, [&] {
                return timed([&] { ashlar_shm_close(ashlar_shm_open_fd(fd, 0)); });
              }));
  std::printf("| ask whether somebody died (16 processes, nobody did) | %.3g µs |\n",
              median_us(101, [&] { return timed([&] { ashlar_shm_recover(arena); }); }));
  std::printf(
      "| check 1 GiB | %.3g µs (%s) |\n",
      median_us(5, [&] { return timed([&] { ashlar_shm_check(arena, why, sizeof why); }); }),
      *why == 0 ? "sound" : why);
  const auto kill_and_reap = [&](std::size_t i) {
    kill(children[i], SIGKILL);
    waitpid(children[i], nullptr, 0);
  };
  std::size_t next = 0;
  std::printf("| recover one of 16 processes, 1 GiB | %.3g µs |\n", median_us(5, [&] {
                kill_and_reap(next++);
                return timed([&] { ashlar_shm_recover(arena); });
              }));
  while (next < children.size()) kill_and_reap(next++);
  std::printf("| recover the other 11 at once | %.3g µs |\n",
              timed([&] { ashlar_shm_recover(arena); }) * 1e6);
  ashlar_shm_stats stats;
  ashlar_shm_stat(arena, &stats);
  std::printf("| memory for 1000 MiB of blocks of 1 KiB | %.4g MiB |\n",
              static_cast<double>(stats.mapped + stats.metadata) / kMiB);
  ashlar_shm_close(arena);
}

// CPU time, as in rows of one process.
double lock_and_unlock(ashlar_shm* arena, const ashlar_handle* objects, std::size_t count) {
  constexpr std::size_t kLocks = 5'000'000;
  return median_us(5, [&] {
    return worked([&] {
             for (std::size_t i = 0; i < kLocks; i++) {
               touch(ashlar_shm_handle_lock(arena, objects[i % count]));
               ashlar_shm_handle_unlock(arena, objects[i % count]);
             }
           }) /
           kLocks;
  });
}

double density(const ashlar_shm_stats& stats) {
  return static_cast<double>(stats.handle_allocated) / static_cast<double>(stats.handle_active);
}

// In calls of at most 500 µs.
void pass(ashlar_shm* arena) {
  ashlar_shm_stats before;
  ashlar_shm_stats after;
  ashlar_shm_stat(arena, &before);
  std::vector<double> calls;
  ashlar_moved moved{};
  for (int answer = 1; answer == 1;) {
    calls.push_back(worked([&] { answer = ashlar_shm_compact(arena, 500, SIZE_MAX, &moved); }) *
                    1e6);
    if (answer < 0) std::abort();
  }
  ashlar_shm_stat(arena, &after);
  const double first = calls[0];  // chooses the victims
  std::sort(calls.begin(), calls.end());
  std::printf("| a pass: density before and after | %.3g, %.3g |\n", density(before),
              density(after));
  std::printf("| bytes moved for each byte freed | %.3g |\n",
              static_cast<double>(moved.bytes) / static_cast<double>(moved.freed));
  std::printf("| its %zu calls of 500 µs: first, median, longest | %.3g, %.3g, %.3g µs |\n",
              calls.size(), first, calls[calls.size() / 2], calls.back());
}

// Objects of four sizes, of which one in ten stays.
void handles() {
  constexpr std::size_t kCount = 300'000;
  constexpr std::size_t kKept = kCount / 10;
  constexpr std::size_t kSizes[] = {48, 100, 250, 500};
  ashlar_shm* const arena = ashlar_shm_create_anonymous(512 * kMiB, 0);
  std::minstd_rand random(1);
  std::vector<ashlar_handle> objects(kCount);
  const double made = worked([&] {
    for (ashlar_handle& h : objects) h = ashlar_shm_handle_alloc(arena, kSizes[random() / 8 % 4]);
  });
  std::shuffle(objects.begin(), objects.end(), random);
  std::printf("| make an object with a handle | %.3g ns |\n", made / kCount * 1e9);
  std::printf("| lock and unlock one such object | %.3g ns |\n",
              lock_and_unlock(arena, objects.data(), 1) * 1e3);
  std::printf("| lock and unlock 1000 in turn | %.3g ns |\n",
              lock_and_unlock(arena, objects.data(), 1000) * 1e3);
  const double freed = worked([&] {
    for (std::size_t i = kKept; i < kCount; i++) ashlar_shm_handle_free(arena, objects[i]);
  });
  std::printf("| free one | %.3g ns |\n", freed / (kCount - kKept) * 1e9);
  pass(arena);
  ashlar_shm_close(arena);
}

}  // namespace

int main() {
  const SharedArena arena{.arena = ashlar_shm_create_anonymous(kSegmentBytes, 0)};
  const Malloc heap;
  const BoostSegment<ashlar::shm_algorithm<>, false> adapted("Boost on a shared arena");
  const BoostSegment<bi::rbtree_best_fit<bi::mutex_family>, true> best_fit("Boost rbtree_best_fit");
  const BoostSegment<bi::simple_seq_fit<bi::mutex_family>, true> first_fit("Boost simple_seq_fit");
  const auto with_all = [&](auto&& use) { use(arena, heap, adapted, best_fit, first_fit); };
  const auto row = [&](const char* name, auto&& run) {
    with_all([&](const auto&... all) { print_row(name, run, all...); });
  };

  std::printf("| ns per operation |");
  with_all([](const auto&... all) { (std::printf(" %s |", all.name), ...); });
  std::printf("\n|---|---|---|---|---|---|\n");
  row("pair/64", [](const auto& a) {
    return pair(a, a.slow ? 100'000 : 5'000'000, CLOCK_PROCESS_CPUTIME_ID);
  });
  row("replace_10K/16-1K",
      [](const auto& a) { return replace(a, 10'000, a.slow ? 5'000 : 2'000'000); });
  row("two_pair/64", [](const auto& a) { return two_pairs(a, a.slow ? 500'000 : 5'000'000); });
  row("handover/64", [](const auto& a) {
    return a.shared ? handover(a, a.slow ? 20'000 : 200'000) : std::nan("");
  });
  std::printf("\n| a process is killed at work; another one hangs | in 20 trials |\n|---|---|\n");
  const auto print_hangs = [](const auto& a) {
    if (a.shared) std::printf("| %s | %d |\n", a.name, hangs_after_kill(a));
    std::fflush(stdout);
  };
  with_all([&](const auto&... all) { (print_hangs(all), ...); });
  std::printf("\n| the arena alone | |\n|---|---|\n");
  std::printf("| two processes' throughput over one's, by CPU time | %.3g |\n",
              scaling(arena, 5'000'000));
  deaths();
  handles();
  ashlar_shm_close(arena.arena);
}
