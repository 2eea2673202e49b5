// SPDX-License-Identifier: MIT
// Rows whose memory stays in the caches: pairs, batches, calloc, aligned, realloc.
//
// They show the length of the fast path and, in batches, what refilling and flushing costs.
#include "micro.h"

#include <cstdlib>

namespace ashlar::bench {

namespace {

// One operation: malloc, touch, free.
template <class Sizes>
void pair(const std::string& name, Sizes sizes) {
  add_row("pair/" + name, [sizes](benchmark::State& state) {
    std::size_t next = 0;
    for (auto _ : state) heap.free(take(sizes[next++]));
    report(state, 1);
  });
}

// One operation: an object allocated and freed.
template <class Sizes>
void batch(const std::string& name, std::size_t count, Order order, Sizes sizes) {
  add_row(name, [=](benchmark::State& state) {
    std::vector<void*> objects(count);
    const auto free_order = make_order(order, count);
    std::size_t next = 0;
    for (auto _ : state) next = run_batch(objects, free_order, sizes, next);
    report(state, count);
  });
}

void zeroed(const std::string& name, std::size_t bytes) {
  add_row("calloc/" + name, [bytes](benchmark::State& state) {
    for (auto _ : state) heap.free(touch(heap.calloc(1, bytes)));
    report(state, 1);
  });
}

// Three times the alignment: a size for which the alignment does not come by itself.
void aligned(const std::string& name, std::size_t alignment) {
  add_row("aligned/" + name, [alignment](benchmark::State& state) {
    for (auto _ : state) {
      void* object = nullptr;
      if (heap.posix_memalign(&object, alignment, 3 * alignment) != 0) std::abort();
      heap.free(touch(object));
    }
    report(state, 1);
  });
}

void write_word(char* object, std::size_t offset) {
  *reinterpret_cast<std::uintptr_t*>(object + offset) = 1;
}

// Strings that are appended to in turns. A single one can grow in place when nothing lies behind
// it; two are in each other's way, as in most programs. One operation: a realloc by 64 bytes.
template <std::size_t kStrings>
void grow_small(const std::string& name) {
  add_row(name, [](benchmark::State& state) {
    constexpr std::size_t kLeast = 16, kMost = 12 * kKiB, kStep = 64;
    for (auto _ : state) {
      std::array<char*, kStrings> strings = {};
      for (std::size_t bytes = kLeast; bytes <= kMost; bytes += kStep) {
        for (char*& string : strings) {
          string = static_cast<char*>(heap.realloc(string, bytes));
          write_word(string, bytes - sizeof(std::uintptr_t));
        }
      }
      for (char* string : strings) heap.free(string);
    }
    report(state, kStrings * ((kMost - kLeast) / kStep + 1));
  });
}

// A buffer that doubles and is filled. One operation: a realloc, and one word written to each page
// that it added; these page faults are the floor under this row.
void grow_large() {
  add_timed_row("realloc/1M-64M", 2, [](benchmark::State& state) {
    constexpr std::size_t kLeast = kMiB, kMost = 64 * kMiB, kPage = 4 * kKiB;
    constexpr std::size_t kReallocs = 7;
    for (auto _ : state) {
      const Stopwatch watch(kCpuTime);
      char* object = nullptr;
      std::size_t touched = 0;
      for (std::size_t bytes = kLeast; bytes <= kMost; bytes *= 2) {
        object = static_cast<char*>(heap.realloc(object, bytes));
        for (; touched < bytes; touched += kPage) write_word(object, touched);
      }
      heap.free(object);
      state.SetIterationTime(watch.elapsed_s());
    }
    report(state, kReallocs);
  });
}

// Two blocks in each other's way, all of whose pages were written, grow by a quarter. One
// operation: a realloc, and nothing else.
void grow_written() {
  add_timed_row("realloc/64M", 4, [](benchmark::State& state) {
    constexpr std::size_t kBytes = 64 * kMiB, kPage = 4 * kKiB;
    std::array<char*, 2> blocks;
    for (auto _ : state) {
      for (char*& block : blocks) {
        block = static_cast<char*>(heap.malloc(kBytes));
        for (std::size_t at = 0; at < kBytes; at += kPage) write_word(block, at);
      }
      const Stopwatch watch(kCpuTime);
      for (char*& block : blocks) {
        block = static_cast<char*>(heap.realloc(block, kBytes + kBytes / 4));
      }
      state.SetIterationTime(watch.elapsed_s());
      for (char* block : blocks) heap.free(block);
    }
    report(state, blocks.size());
  });
}

}  // namespace

void add_small_rows() {
  pair("16", Fixed{16});
  pair("64", Fixed{64});
  pair("256", Fixed{256});
  pair("1K", Fixed{kKiB});
  pair("4K", Fixed{4 * kKiB});
  pair("64K", Fixed{64 * kKiB});
  pair("1M", Fixed{kMiB});
  pair("2K-6K", Mixed(2 * kKiB, 6 * kKiB));
  pair("16-1K", Mixed(16, kKiB));

  batch("batch_16_lifo/64", 16, Order::lifo, Fixed{64});
  for (const std::size_t bytes : {16u, 64u}) {
    batch("batch_lifo/" + std::to_string(bytes), 1000, Order::lifo, Fixed{bytes});
    batch("batch_fifo/" + std::to_string(bytes), 1000, Order::fifo, Fixed{bytes});
    batch("batch_random/" + std::to_string(bytes), 1000, Order::random, Fixed{bytes});
  }
  batch("batch_random/16-1K", 1000, Order::random, Mixed(16, kKiB));

  zeroed("64", 64);
  zeroed("4K", 4 * kKiB);
  aligned("64", 64);
  aligned("256", 256);
  aligned("4K", 4 * kKiB);
  grow_small<1>("realloc/16-12K");
  grow_small<2>("realloc_in_turns/16-12K");
  grow_large();
  grow_written();
}

}  // namespace ashlar::bench
