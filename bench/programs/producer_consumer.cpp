// SPDX-License-Identifier: MIT
// Producers allocate and consumers free: what Lever and Boreham's malloc-test ("malloc()
// Performance in a Multithreaded Linux Environment", USENIX 2000) was extended to. Two of each;
// objects go in batches through one queue, whose waiting costs no CPU time.
#include <condition_variable>
#include <deque>
#include <mutex>

#include "program.h"

namespace {

using Batch = std::array<void*, 1000>;

class Queue {
 public:
  void send(const Batch& batch) {
    std::unique_lock guard(lock_);
    has_room_.wait(guard, [this] { return batches_.size() < kMost; });
    batches_.push_back(batch);
    has_batch_.notify_one();
  }

  Batch receive() {
    std::unique_lock guard(lock_);
    has_batch_.wait(guard, [this] { return !batches_.empty(); });
    const Batch batch = batches_.front();
    batches_.pop_front();
    has_room_.notify_one();
    return batch;
  }

 private:
  static constexpr std::size_t kMost = 64;
  std::mutex lock_;
  std::condition_variable has_room_, has_batch_;
  std::deque<Batch> batches_;  // lock: lock_
};

}  // namespace

int main() {
  using namespace ashlar::bench;
  require_expected_malloc();
  constexpr std::size_t kThreads = 4, kBatches = 15'000, kLeastBytes = 16, kMostBytes = 512;
  Queue queue;
  run_threads(kThreads, [&queue](std::size_t thread) {
    Random random(thread);
    for (std::size_t i = 0; i < kBatches; i++) {
      if (thread % 2 == 0) {
        Batch batch;
        for (void*& object : batch) object = take(random.between(kLeastBytes, kMostBytes));
        queue.send(batch);
      } else {
        for (void* object : queue.receive()) std::free(object);
      }
    }
  });
}
