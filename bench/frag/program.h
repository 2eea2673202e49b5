// SPDX-License-Identifier: MIT
// What a workload is written with: objects by the thousand, sizes, samples on the way, and the
// silence at the end.
//
// What:    a workload is one function. It takes and gives objects through its Program, which
//          samples after so many bytes taken and given; it marks what the table will show; and
//          it ends in idle(), during which nothing is called for so many seconds.
// Threads: the main one. Workers of a workload use the ledger.
#pragma once

#include <cstddef>
#include <cstdint>

#include "ledger.h"
#include "meter.h"
#include "packer.h"

namespace ashlar::bench::frag {

struct Settings {
  double scale = 1;  // of all amounts; 1: a peak of about 1 GiB
  std::uint64_t seed = 1;
  double idle_s = 12;
  Packer* packer = nullptr;  // instead of malloc
};

class Program {
 public:
  explicit Program(const Settings& settings);

  std::size_t scaled(std::size_t bytes) const {
    return static_cast<std::size_t>(static_cast<double>(bytes) * settings_.scale);
  }

  Object take(std::size_t size);
  void give(Object object);
  void mark(const char* name) { meter.sample(Meter::Ask::yes, name); }

  // Sleeps, then samples.
  void pause(double seconds);

  // The load is over. Sleeps and samples; the last sample is the result.
  void idle();

  Random random;
  Ledger ledger;
  Meter meter;

 private:
  void sample_if_due();

  Settings settings_;
  std::size_t sample_every_;     // bytes
  std::size_t next_sample_ = 0;  // at so many bytes moved
};

// Sizes: all the same; uniform; log-normal, cut off at both ends; log-uniform.
struct Fixed {
  std::size_t bytes;
  std::size_t operator()(Random&) const { return bytes; }
};
struct Uniform {
  std::size_t least, most;
  std::size_t operator()(Random& random) const {
    return std::uniform_int_distribution<std::size_t>(least, most)(random);
  }
};
struct LogNormal {
  double median, sigma;
  std::size_t least, most;
  std::size_t operator()(Random& random) const;
};
struct LogUniform {
  std::size_t least, most;
  std::size_t operator()(Random& random) const;
};

// Takes objects until `bytes` are taken. Heap: a Program or a Ledger.
template <class Heap, class Sizes>
void fill(Heap& heap, Objects& objects, std::size_t bytes, const Sizes& sizes, Random& random) {
  while (bytes > 0) {
    const std::size_t size = sizes(random);
    objects.push(heap.take(size));
    bytes -= size < bytes ? size : bytes;
  }
}

// Gives objects, in random order, until this share of them is left.
template <class Heap>
void thin_out(Heap& heap, Objects& objects, double kept, Random& random) {
  objects.shuffle(random);
  const auto left = static_cast<std::size_t>(static_cast<double>(objects.size()) * kept);
  while (objects.size() > left) heap.give(objects.pop());
}

// The workloads. bench/frag/README.md says what each is for.
using Workload = void(Program&);
Workload survivors, survivors_95, size_shift, doubling, server, large, large_churn, peak_trough,
    pinned;
Workload thread_churn, remote_free, idle_threads, parked_threads;

}  // namespace ashlar::bench::frag
