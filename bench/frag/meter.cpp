// SPDX-License-Identifier: MIT
#include "meter.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <ctime>

#include "ashlar/ashlar.h"
#include "packer.h"

namespace ashlar::bench::frag {
namespace {

constexpr std::size_t kSamplesMost = 16384;

double now_s() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) * 1e-9;
}

// The bytes of one line of smaps_rollup, "Pss:    1234 kB".
std::size_t field(const char* text, const char* name) {
  const char* line = std::strstr(text, name);
  if (line == nullptr) die("/proc/self/smaps_rollup has no line '%s'", name + 1);
  return std::strtoull(line + std::strlen(name), nullptr, 10) * kKiB;
}

void read_kernel_account(Sample& sample) {
  char text[4096];
  const int file = open("/proc/self/smaps_rollup", O_RDONLY | O_CLOEXEC);
  const ssize_t length = file < 0 ? -1 : read(file, text, sizeof(text) - 1);
  if (length <= 0) die("cannot read /proc/self/smaps_rollup");
  close(file);
  text[length] = '\0';
  sample.rss = field(text, "\nRss:");
  sample.pss = field(text, "\nPss:");
  sample.huge = field(text, "\nAnonHugePages:");
}

using Mallctl = int(const char*, void*, std::size_t*, void*, std::size_t);
decltype(&ashlar_get_stats) ashlar_teller;
Mallctl* jemalloc_teller;

template <class Function>
void find(Function*& function, const char* name) {
  function = reinterpret_cast<Function*>(dlsym(RTLD_DEFAULT, name));
}

}  // namespace

void find_teller() {
  find(ashlar_teller, "ashlar_get_stats");
  find(jemalloc_teller, "mallctl");
}

Told ask_allocator() {
  if (ashlar_teller != nullptr) {
    ashlar_stats stats;
    ashlar_teller(&stats);
    return {stats.active, stats.metadata};
  }
  Told told;
  if (jemalloc_teller != nullptr) {
    std::uint64_t epoch = 1;  // any write makes jemalloc add up its numbers
    jemalloc_teller("epoch", nullptr, nullptr, &epoch, sizeof(epoch));
    std::size_t size = sizeof(told.active);
    jemalloc_teller("stats.active", &told.active, &size, nullptr, 0);
    jemalloc_teller("stats.metadata", &told.metadata, &size, nullptr, 0);
  }
  return told;
}

Meter::Meter(const Ledger& ledger)
    : ledger_(ledger),
      start_s_(now_s()),
      samples_(static_cast<Sample*>(map_touched(kSamplesMost * sizeof(Sample)))) {}

const Sample& Meter::sample(Ask ask, const char* mark) {
  if (count_ == kSamplesMost) die("more than %zu samples", kSamplesMost);
  Sample& sample = samples_[count_++];
  sample = {};
  const Packer* const packer = ledger_.packer();
  if (packer == nullptr) {
    read_kernel_account(sample);
  } else {
    sample.rss = sample.pss = bytes_of_tables() + packer->held();
  }
  sample.time_s = now_s() - start_s_;
  sample.moved = ledger_.moved();
  sample.live = ledger_.live();
  sample.usable = ledger_.usable();
  sample.tables = bytes_of_tables();
  sample.mark = mark;
  if (ask == Ask::yes && packer == nullptr) sample.told = ask_allocator();
  return sample;
}

}  // namespace ashlar::bench::frag
