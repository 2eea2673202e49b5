// SPDX-License-Identifier: MIT
// What the process holds, over time: live bytes beside the kernel's and the allocator's account.
//
// What:    a sample reads /proc/self/smaps_rollup by open, read and close into a buffer on the
//          stack, and goes into an array that was mapped and touched beforehand. No malloc.
//          With a packer, what that holds is all there is.
// Active:  bytes in slabs and large blocks, and metadata, where the allocator tells: Ashlar by
//          ashlar_get_stats, jemalloc by mallctl. Asked for during the load and after the last
//          sample, never while idle: there, nobody calls the allocator at all.
// Threads: one.
#pragma once

#include <cstddef>
#include <cstdio>

#include "ledger.h"

namespace ashlar::bench::frag {

struct Told {
  std::size_t active = 0;  // 0: not told
  std::size_t metadata = 0;
};

struct Sample {
  double time_s;
  std::size_t moved;
  std::size_t live;
  std::size_t usable;
  std::size_t pss;
  std::size_t rss;
  std::size_t huge;    // of rss, in huge pages
  std::size_t tables;  // of pss and rss, the workload's own
  Told told;
  const char* mark;  // null for most
};

class Meter {
 public:
  enum class Ask { no, yes };

  explicit Meter(const Ledger& ledger);

  // mark: a name to find this sample by; it must outlive the meter.
  const Sample& sample(Ask ask, const char* mark = nullptr);

  std::size_t count() const { return count_; }
  const Sample& operator[](std::size_t i) const { return samples_[i]; }
  const Sample& last() const { return samples_[count_ - 1]; }

 private:
  const Ledger& ledger_;
  double start_s_;
  Sample* samples_;
  std::size_t count_ = 0;
};

// What the allocator under test says of itself. find_teller() must run before the first sample.
void find_teller();
Told ask_allocator();

}  // namespace ashlar::bench::frag
