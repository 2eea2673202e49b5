// SPDX-License-Identifier: MIT
// What ashlar-bench-shm times: allocators, and the rows that each of them runs.
//
// An allocator is a type, so that a row calls it as a program does: Boost's headers are compiled
// into the loop, the shared arena and malloc are calls of a library. All of them keep what they
// hand out in memory that children of fork share, except malloc.
#pragma once

#include <ashlar/shm.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <boost/interprocess/indexes/null_index.hpp>
#include <boost/interprocess/managed_shared_memory.hpp>
#include <cmath>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <memory>
#include <new>
#include <random>
#include <string>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>
#include <vector>

namespace ashlar::bench {

inline constexpr std::size_t kMiB = 1 << 20;
inline constexpr std::size_t kSegmentBytes = 256 * kMiB;

// --- allocators ---------------------------------------------------------------------------------

struct SharedArena {
  static constexpr bool shared = true;
  static constexpr bool slow = false;  // less of it is enough
  const char* name = "shared arena";
  ashlar_shm* arena;

  void* take(std::size_t bytes) const { return ashlar_shm_malloc(arena, bytes); }
  void give(void* p) const { ashlar_shm_free(arena, p); }
};

struct Malloc {
  static constexpr bool shared = false;
  static constexpr bool slow = false;
  const char* name = "malloc";

  void* take(std::size_t bytes) const { return std::malloc(bytes); }
  void give(void* p) const { std::free(p); }
};

template <class Algorithm, bool is_slow>
class BoostSegment {
  using Segment = boost::interprocess::basic_managed_shared_memory<char, Algorithm,
                                                                   boost::interprocess::null_index>;

 public:
  static constexpr bool shared = true;
  static constexpr bool slow = is_slow;
  const char* name;

  explicit BoostSegment(const char* its_name) : name(its_name) {
    const std::string file = "ashlar-bench-shm-" + std::to_string(getpid());
    segment_ =
        std::make_unique<Segment>(boost::interprocess::create_only, file.c_str(), kSegmentBytes);
    boost::interprocess::shared_memory_object::remove(file.c_str());
  }
  void* take(std::size_t bytes) const { return segment_->allocate(bytes, std::nothrow); }
  void give(void* p) const { segment_->deallocate(p); }

 private:
  std::unique_ptr<Segment> segment_;
};

// --- time ---------------------------------------------------------------------------------------

inline double seconds(clockid_t clock) {
  timespec now{};
  clock_gettime(clock, &now);
  return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) * 1e-9;
}

inline double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

inline void* touch(void* p) {
  if (p == nullptr) std::abort();
  *static_cast<volatile char*>(p) = 1;
  return p;
}

// --- rows: seconds per operation ----------------------------------------------------------------

template <class A>
double pair(const A& a, std::size_t count, clockid_t clock) {
  const double start = seconds(clock);
  for (std::size_t i = 0; i < count; i++) a.give(touch(a.take(64)));
  return (seconds(clock) - start) / static_cast<double>(count);
}

template <class A>
double replace(const A& a, std::size_t live, std::size_t count) {
  std::minstd_rand random(1);
  std::vector<void*> blocks(live);
  for (void*& p : blocks) p = touch(a.take(16 + random() % 1000));
  const double start = seconds(CLOCK_PROCESS_CPUTIME_ID);
  for (std::size_t i = 0; i < count; i++) {
    void*& p = blocks[random() % live];
    a.give(p);
    p = touch(a.take(16 + random() % 1000));
  }
  const double taken = seconds(CLOCK_PROCESS_CPUTIME_ID) - start;
  for (void* p : blocks) a.give(p);
  return taken / static_cast<double>(count);
}

// Two processes run(0) and run(1) at the same time; the longer of what they return.
template <class Run>
double two_processes(Run&& run) {
  struct Results {
    std::atomic<bool> go;
    double of[2];
  };
  void* const memory =
      mmap(nullptr, sizeof(Results), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) std::abort();
  auto* const results = new (memory) Results{};
  for (int i = 0; i < 2; i++) {
    if (fork() != 0) continue;
    while (!results->go.load()) {
    }
    results->of[i] = run(i);
    _exit(0);
  }
  results->go.store(true);
  while (wait(nullptr) > 0) {
  }
  const double longer = std::max(results->of[0], results->of[1]);
  munmap(memory, sizeof(Results));
  return longer;
}

template <class A>
double two_pairs(const A& a, std::size_t count) {
  return two_processes([&](int) { return pair(a, count, CLOCK_MONOTONIC); });
}

// Throughput of two processes over that of one. By CPU time, in which lines that they share show,
// and cores that others use do not.
template <class A>
double scaling(const A& a, std::size_t count) {
  std::vector<double> rounds;
  for (int round = 0; round < 5; round++) {
    const auto run = [&](int) { return pair(a, count, CLOCK_PROCESS_CPUTIME_ID); };
    rounds.push_back(2 * run(0) / two_processes(run));
  }
  return median(rounds);
}

// One takes, the other gives. All are mapped at the same address in both.
template <class A>
double handover(const A& a, std::size_t count) {
  using Ring = std::array<std::atomic<void*>, 1024>;
  void* const memory =
      mmap(nullptr, sizeof(Ring), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) std::abort();
  Ring& ring = *new (memory) Ring{};
  const double taken = two_processes([&](int side) {
    const double start = seconds(CLOCK_MONOTONIC);
    for (std::size_t i = 0; i < count; i++) {
      std::atomic<void*>& place = ring[i % ring.size()];
      if (side == 0) {
        void* const p = touch(a.take(64));
        while (place.load(std::memory_order_acquire) != nullptr) sched_yield();
        place.store(p, std::memory_order_release);
      } else {
        void* p;
        while ((p = place.load(std::memory_order_acquire)) == nullptr) sched_yield();
        place.store(nullptr, std::memory_order_release);
        a.give(p);
      }
    }
    return (seconds(CLOCK_MONOTONIC) - start) / static_cast<double>(count);
  });
  munmap(memory, sizeof(Ring));
  return taken;
}

// A process takes and gives, is killed, and another one takes one block. How often in 20 trials the
// second one does not come back.
template <class A>
int hangs_after_kill(const A& a) {
  int hangs = 0;
  for (int trial = 0; trial < 20; trial++) {
    const pid_t victim = fork();
    if (victim == 0) {
      for (;;) a.give(a.take(64));
    }
    usleep(10'000 + static_cast<useconds_t>(trial) * 37);
    kill(victim, SIGKILL);
    waitpid(victim, nullptr, 0);
    const pid_t survivor = fork();
    if (survivor == 0) {
      alarm(1);
      a.give(touch(a.take(64)));
      _exit(0);
    }
    int status = 0;
    waitpid(survivor, &status, 0);
    hangs += status != 0;
  }
  return hangs;
}

// --- a table's line -----------------------------------------------------------------------------

// Nanoseconds: of each allocator the median of five rounds, in which all run in turn; a dash where
// run(a) is no number.
template <class Run, class... Allocators>
void print_row(const char* name, Run&& run, const Allocators&... all) {
  std::array<std::vector<double>, sizeof...(all)> rounds;
  for (int round = 0; round < 5; round++) {
    std::size_t i = 0;
    (rounds[i++].push_back(run(all) * 1e9), ...);
  }
  std::printf("| `%s` |", name);
  for (const auto& values : rounds) {
    if (std::isnan(values[0])) {
      std::printf(" – |");
    } else {
      std::printf(" %.3g |", median(values));
    }
  }
  std::printf("\n");
  std::fflush(stdout);
}

}  // namespace ashlar::bench
