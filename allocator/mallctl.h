// SPDX-License-Identifier: MIT
// L5 · mallctl: jemalloc's tree of names, under which a heap can be asked and told.
//
// What:    names, types and error codes are those of jemalloc's manual; what has no meaning here
//          (its profiler, caches and hooks) is ENOENT, which programs must expect.
// How:     one table of names. '#' stands for a number: an arena (there is one; jemalloc's index
//          for "all" means the same) or a size class. A name that acts does so when it is called,
//          one that is asked reads its input; all others are read-only (EPERM). Statistics are
//          those of the last "epoch".
// Threads: any. Not for signal handlers: a lock guards the statistics.
#pragma once

#include <cstddef>
#include <string_view>

namespace ashlar {

// A name in numbers, as mallctlnametomib gives it: its parts, those that are numbers as they are,
// and in the place of the first the row of the table.
struct Mib {
  static constexpr std::size_t kMostParts = 8;
  std::size_t part[kMostParts] = {};
  std::size_t length = 0;
};

// What mallctl is called with, but for the name.
struct Query {
  void* output;
  std::size_t* output_bytes;
  const void* input;
  std::size_t input_bytes;
};

// False: there is no such name.
bool find_name(std::string_view name, Mib& mib);
// 0, ENOENT, EPERM or EINVAL.
int control(const Mib& mib, const Query& query);

}  // namespace ashlar
