// SPDX-License-Identifier: MIT
// samples: a random part of the live objects, with the stacks that allocated them.
//
// What:    the allocator samples an object of s bytes with probability p = 1 − exp(−s / mean), so a
//          sampled one stands for 1 / p. Sums over samples, so weighted, are right on average. Each
//          sample has the mean that it was taken with, see the allocator's sample_pace.h.
// Threads: values and pure functions.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "snapshot.h"

namespace ashlar::frag {

struct Registers {
  std::uint64_t rip = 0, rsp = 0, rbp = 0, rbx = 0, r12 = 0, r13 = 0, r14 = 0, r15 = 0;
};

struct Sample {
  std::uint64_t address = 0;
  std::uint64_t bytes = 0;      // of its slot or pages
  std::uint64_t requested = 0;  // what the program asked for when it was allocated
  std::uint64_t mean_bytes = 0;
  // Its part of what its slab has in memory beside live objects. Summed over all live objects, that
  // is all there is.
  double pinned = 0;
  Registers registers;           // in the allocator, when it was allocated
  std::vector<std::byte> stack;  // from rsp on

  // For how many objects it stands.
  double weight() const;
};

struct Samples {
  std::uint64_t mean_bytes = 0;  // what sample_kib says
  std::uint64_t taken = 0;       // ever
  std::uint64_t lost = 0;        // of these, not kept for want of room
  std::vector<Sample> live;

  // The average of those that are live: more than mean_bytes where samples had to be thinned.
  double effective_mean_bytes() const;
};

// Bytes by which live objects are larger than what the program asked for: internal fragmentation.
Estimate rounding(const Samples& samples);

// A call stack, innermost first.
struct Frame {
  std::uint64_t address = 0;
  std::string function;  // empty: unknown
  std::string place;     // "file.c:12", or the name of the module
};

// What one stack has allocated that lives, as far as samples tell.
struct Site {
  std::vector<Frame> stack;
  std::uint64_t samples = 0;
  double objects = 0;
  double bytes = 0;
  double pinned = 0;
};

// Samples by their stacks, which are in the same order; what pins most first.
std::vector<Site> sites(const Samples& samples, const std::vector<std::vector<Frame>>& stacks);

// "outermost;…;innermost BYTES" a line: for flame graphs. Bytes that are pinned, or that live.
std::string folded_text(const std::vector<Site>& sites, bool pinned);
// jemalloc's heap_v2 text, which pprof reads. `maps` is the text of /proc/PID/maps.
std::string pprof_text(const std::vector<Site>& sites, const std::string& maps);

}  // namespace ashlar::frag
