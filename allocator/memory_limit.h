// SPDX-License-Identifier: MIT
// L1 · memory_limit: how near this process's control group is to its end.
//
// What:    finds the innermost group above us with a limit (cgroup v2: memory.max, v1:
//          memory.limit_in_bytes), and says from then on whether memory is short there; without a
//          limit, whether threads of our own group wait for memory.
// How:     one file stays open, three where there is a limit: a program may lock itself in later so
//          that opening is deadly, while reading a file seldom is. They are numbered high, out of
//          the way of a program that counts on the lowest numbers. If it closes them, memory is
//          never short.
// Threads: who starts the maintenance thread, and then that one.
#pragma once

#include <string_view>

#include "units.h"

namespace ashlar {

enum class Shortage : std::uint8_t {
  none,
  some,  // threads of the group wait for memory (PSI)
  tight  // more than 90 % of the limit are in use, without cached files that nobody uses
};

class MemoryLimit {
 public:
  constexpr MemoryLimit() = default;

  // Does nothing the second time. `root` is put in front of /proc and /sys, for tests.
  void find(std::string_view root = "");
  Shortage shortage() const;
  // How much too much is in use: then memory is tight.
  Bytes excess() const;
  Bytes bytes() const { return bytes_; }  // 0: none

 private:
  bool look_in(std::string_view group, bool v2);

  bool looked_ = false;
  Bytes bytes_ = 0;
  int usage_ = -1;  // open files, or -1
  int stat_ = -1;
  int pressure_ = -1;
};

extern constinit MemoryLimit memory_limit;

}  // namespace ashlar
