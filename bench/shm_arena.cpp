// SPDX-License-Identifier: MIT
// ashlar-bench-shm: a shared arena beside Boost.Interprocess and beside malloc.
//
//   LD_PRELOAD=build/release/libashlar.so build/release/bench/ashlar-bench-shm
//
// Each row runs all of them in turn, five rounds; shown are medians, in nanoseconds per operation.
// malloc is whatever is preloaded. Rows of one process count its CPU time; rows of two count wall
// time, and want two idle cores. Then what only the arena does: attaching, death, fsck, handles.
#include <ashlar/boost_interprocess.hpp>
#include <ashlar/shm.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <boost/interprocess/indexes/null_index.hpp>
#include <boost/interprocess/managed_shared_memory.hpp>
#include <boost/interprocess/mem_algo/rbtree_best_fit.hpp>
#include <boost/interprocess/mem_algo/simple_seq_fit.hpp>
#include <boost/interprocess/sync/mutex_family.hpp>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <memory>
#include <new>
#include <random>
#include <string>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>
#include <vector>

namespace {

namespace bi = boost::interprocess;

constexpr std::size_t kMiB = 1 << 20;
constexpr std::size_t kSegmentBytes = 256 * kMiB;

double seconds(clockid_t clock) {
  timespec now{};
  clock_gettime(clock, &now);
  return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) * 1e-9;
}

// Something that takes and gives, in memory that children of fork share.
struct Allocator {
  const char* name;
  std::function<void*(std::size_t)> take;
  std::function<void(void*)> give;
  bool slow = false;  // less of it is enough
};

template <class Algorithm>
Allocator boost_allocator(const char* name, bool slow) {
  using Segment = bi::basic_managed_shared_memory<char, Algorithm, bi::null_index>;
  const std::string file = "ashlar-bench-shm-" + std::to_string(getpid());
  const auto segment = std::make_shared<Segment>(bi::create_only, file.c_str(), kSegmentBytes);
  bi::shared_memory_object::remove(file.c_str());
  return {name, [segment](std::size_t bytes) { return segment->allocate(bytes, std::nothrow); },
          [segment](void* p) { segment->deallocate(p); }, slow};
}

void* touch(void* p) {
  if (p == nullptr) std::abort();
  *static_cast<volatile char*>(p) = 1;
  return p;
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

// Rows return seconds per operation.
double pair(const Allocator& a, std::size_t count, clockid_t clock) {
  const double start = seconds(clock);
  for (std::size_t i = 0; i < count; i++) a.give(touch(a.take(64)));
  return (seconds(clock) - start) / static_cast<double>(count);
}

double replace(const Allocator& a, std::size_t live, std::size_t count) {
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

struct Shared {
  std::atomic<bool> go;
  double result[2];
  std::atomic<std::uint64_t> sent, received;
  std::array<std::atomic<void*>, 1024> ring;
};
Shared* shared;

template <class Run>
double two_processes(Run&& run) {
  new (shared) Shared{};
  for (int i = 0; i < 2; i++) {
    if (fork() != 0) continue;
    while (!shared->go.load()) {
    }
    shared->result[i] = run(i);
    _exit(0);
  }
  shared->go.store(true);
  while (wait(nullptr) > 0) {
  }
  return std::max(shared->result[0], shared->result[1]);
}

double two_pairs(const Allocator& a, std::size_t count) {
  return two_processes([&](int) { return pair(a, count, CLOCK_MONOTONIC); });
}

// Throughput of two processes over that of one. By CPU time, in which lines that they share show,
// and cores that others use do not.
double scaling(const Allocator& a, std::size_t count) {
  std::vector<double> rounds;
  for (int round = 0; round < 5; round++) {
    const auto run = [&](int) { return pair(a, count, CLOCK_PROCESS_CPUTIME_ID); };
    rounds.push_back(2 * run(0) / two_processes(run));
  }
  return median(rounds);
}

// One takes, the other gives. All are mapped at the same address in both.
double handover(const Allocator& a, std::size_t count) {
  return two_processes([&](int side) {
    const double start = seconds(CLOCK_MONOTONIC);
    for (std::size_t i = 0; i < count; i++) {
      std::atomic<void*>& place = shared->ring[i % 1024];
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
}

void row(const char* name, const std::vector<Allocator>& all,
         const std::function<double(const Allocator&, bool slow)>& run) {
  std::vector<std::vector<double>> rounds(all.size());
  for (int round = 0; round < 5; round++) {
    for (std::size_t i = 0; i < all.size(); i++) {
      if (all[i].take) rounds[i].push_back(run(all[i], all[i].slow) * 1e9);
    }
  }
  std::printf("| `%s` |", name);
  for (const auto& values : rounds) {
    if (values.empty()) {
      std::printf(" – |");
    } else {
      std::printf(" %.3g |", median(values));
    }
  }
  std::printf("\n");
  std::fflush(stdout);
}

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

// A process takes and gives, is killed, and another one takes one block. How often in 20 trials the
// second one does not come back.
int hangs_after_kill(const Allocator& a) {
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
  std::size_t moved = 0;
  std::size_t freed = 0;
  for (int answer = 0; answer == 0;) {
    ashlar_shm_compaction done;
    calls.push_back(worked([&] { answer = ashlar_shm_compact(arena, 500, 0, &done); }) * 1e6);
    if (answer < 0) std::abort();
    moved += done.moved_bytes;
    freed += done.freed_bytes;
  }
  ashlar_shm_stat(arena, &after);
  const double first = calls[0];  // chooses the victims
  std::sort(calls.begin(), calls.end());
  std::printf("| a pass: density before and after | %.3g, %.3g |\n", density(before),
              density(after));
  std::printf("| bytes moved for each byte freed | %.3g |\n",
              static_cast<double>(moved) / static_cast<double>(freed));
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
  ashlar_shm* const arena = ashlar_shm_create_anonymous(kSegmentBytes, 0);
  shared = static_cast<Shared*>(
      mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
  const std::vector<Allocator> all = {
      {"shared arena", [arena](std::size_t n) { return ashlar_shm_malloc(arena, n); },
       [arena](void* p) { ashlar_shm_free(arena, p); }},
      {"malloc", [](std::size_t n) { return std::malloc(n); }, [](void* p) { std::free(p); }},
      boost_allocator<ashlar::shm_algorithm<>>("Boost on a shared arena", false),
      boost_allocator<bi::rbtree_best_fit<bi::mutex_family>>("Boost rbtree_best_fit", true),
      boost_allocator<bi::simple_seq_fit<bi::mutex_family>>("Boost simple_seq_fit", true),
  };
  std::printf("| ns per operation |");
  for (const Allocator& a : all) std::printf(" %s |", a.name);
  std::printf("\n|---|---|---|---|---|---|\n");
  row("pair/64", all, [](const Allocator& a, bool slow) {
    return pair(a, slow ? 100'000 : 5'000'000, CLOCK_PROCESS_CPUTIME_ID);
  });
  row("replace_10K/16-1K", all,
      [](const Allocator& a, bool slow) { return replace(a, 10'000, slow ? 5'000 : 2'000'000); });
  std::vector<Allocator> sharing = all;
  row("two_pair/64", all,
      [](const Allocator& a, bool slow) { return two_pairs(a, slow ? 500'000 : 5'000'000); });
  sharing[1].take = nullptr;  // malloc is not shared
  row("handover/64", sharing,
      [](const Allocator& a, bool slow) { return handover(a, slow ? 20'000 : 200'000); });
  std::printf("\n| a process is killed at work; another one hangs | in 20 trials |\n|---|---|\n");
  for (const Allocator& a : sharing) {
    if (a.take) std::printf("| %s | %d |\n", a.name, hangs_after_kill(a));
    std::fflush(stdout);
  }
  std::printf("\n| the arena alone | |\n|---|---|\n");
  std::printf("| two processes' throughput over one's, by CPU time | %.3g |\n",
              scaling(all[0], 5'000'000));
  deaths();
  handles();
  ashlar_shm_close(arena);
}
