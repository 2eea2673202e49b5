// SPDX-License-Identifier: MIT
// Rows of two threads: private work, and objects that one thread allocates and another frees.
//
// One operation is one of one thread: with perfect scaling a row costs what its single-threaded
// sister costs. A program that takes one of the cores away can double a wall time, and nothing
// makes it shorter: so each row runs many times, briefly, and its fastest time counts. The threads
// start inside the timed part; that is about a hundredth of it.
#include "micro.h"

#include <algorithm>
#include <atomic>
#include <limits>
#include <memory>
#include <thread>
#include <tuple>

namespace ashlar::bench {

namespace {

template <class Body>
double run_two_threads_s(Body body) {
  const Stopwatch watch(kWallTime);
  std::thread other(body, 1);
  body(0);
  other.join();
  return watch.elapsed_s();
}

// prepare() returns the body that both threads run, body(0) and body(1).
template <class Prepare>
void add_two_thread_row(const std::string& name, std::size_t operations, Prepare prepare) {
  add_timed_row(name, 12, [=](benchmark::State& state) {
    double fastest_s = std::numeric_limits<double>::max();
    for (auto _ : state) {
      const double elapsed_s = run_two_threads_s(prepare());
      state.SetIterationTime(elapsed_s);
      fastest_s = std::min(fastest_s, elapsed_s);
    }
    state.counters["per_op"] = fastest_s / static_cast<double>(operations);
  });
}

// A queue of batches from one producer to one consumer, short enough for its objects to stay in the
// caches. A batch is copied in and out at a stroke: the cache lines then cross all at once, where
// an object at a time would wait for one line after the other, and time the queue.
class BatchQueue {
 public:
  using Batch = std::array<void*, 64>;

  void send(const Batch& batch) {
    wait([this] { return sent_ - taken_.load() < batches_.size(); });
    batches_[sent_ % batches_.size()] = batch;
    filled_.store(++sent_);
  }

  Batch receive() {
    wait([this] { return filled_.load() > received_; });
    const Batch batch = batches_[received_ % batches_.size()];
    taken_.store(++received_);
    return batch;
  }

 private:
  // Spins for a while, then gives the core up: the other thread may be waiting for it.
  template <class Ready>
  static void wait(Ready ready) {
    for (int spin = 0; !ready(); spin++) {
      if (spin < 1000) {
        __builtin_ia32_pause();
      } else {
        std::this_thread::yield();
      }
    }
  }

  alignas(64) std::size_t sent_ = 0;                 // owner: the producer
  alignas(64) std::atomic<std::size_t> filled_ = 0;  // atomic: producer → consumer
  alignas(64) std::size_t received_ = 0;             // owner: the consumer
  alignas(64) std::atomic<std::size_t> taken_ = 0;   // atomic: consumer → producer
  alignas(64) std::array<Batch, 16> batches_ = {};   // handed to and fro by the two counters
};

// One operation: an object that the main thread allocates and the other frees.
template <class Sizes>
void handover(const std::string& name, Sizes sizes) {
  constexpr std::size_t kBatches = 8 * kKiB;
  constexpr std::size_t kObjects = kBatches * std::tuple_size_v<BatchQueue::Batch>;
  add_two_thread_row("handover/" + name, kObjects, [sizes] {
    return [sizes, queue = std::make_shared<BatchQueue>()](int thread) {
      std::size_t next = 0;
      for (std::size_t i = 0; i < kBatches; i++) {
        if (thread == 0) {
          BatchQueue::Batch batch;
          for (void*& object : batch) object = take(sizes[next++]);
          queue->send(batch);
        } else {
          for (void* object : queue->receive()) heap.free(object);
        }
      }
    };
  });
}

// A server after Larson and Krishnan (ISMM 1998): each of two tables is worked on by a thread that
// replaces objects at random, then ends and leaves the table to its successor, which so frees what
// a dead thread allocated. One operation: one replacement.
template <class Sizes>
void generations(const std::string& name, Sizes sizes) {
  constexpr std::size_t kLive = 5000, kThreads = 10, kReplacements = 100'000;
  add_two_thread_row("generations/" + name, kThreads * kReplacements, [sizes] {
    return [sizes](int chain) {
      std::vector<void*> table(kLive);
      Random random(static_cast<std::uint64_t>(chain));
      std::thread([&] { fill(table, sizes); }).join();
      for (std::size_t i = 0; i < kThreads; i++) {
        std::thread([&] { replace_at_random(table, random, sizes, kReplacements); }).join();
      }
      free_all(table);
    };
  });
}

// Each thread for itself: the rows pair/64 and batch_random/16-1K, twice at a time.
void private_pairs() {
  constexpr std::size_t kPairs = 2'000'000;
  add_two_thread_row("two_pair/64", kPairs, [] {
    return [](int) {
      for (std::size_t i = 0; i < kPairs; i++) heap.free(take(64));
    };
  });
}

template <class Sizes>
void private_batches(const std::string& name, Sizes sizes) {
  constexpr std::size_t kCount = 1000, kBatches = 500;
  add_two_thread_row("two_batch_random/" + name, kCount * kBatches, [sizes] {
    return [sizes, order = make_order(Order::random, kCount)](int) {
      std::vector<void*> objects(kCount);
      std::size_t next = 0;
      for (std::size_t i = 0; i < kBatches; i++) next = run_batch(objects, order, sizes, next);
    };
  });
}

}  // namespace

void add_thread_rows() {
  private_pairs();
  private_batches("16-1K", Mixed(16, kKiB));
  handover("64", Fixed{64});
  handover("16-1K", Mixed(16, kKiB));
  generations("16-512", Mixed(16, 512));
}

}  // namespace ashlar::bench
