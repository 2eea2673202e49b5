// SPDX-License-Identifier: MIT
// L2 · mappings: what this process has mapped at an address, as the kernel tells.
//
// What:    finds the mapping of an address, and opens the file behind it.
// How:     /proc/self/maps, read to the line that is wanted. Two mappings show the same file if
//          the kernel prints the same device and inode for both. (fstat may tell other numbers, on
//          overlays and btrfs.)
// Threads: any; not for signal handlers.
#pragma once

#include <climits>
#include <cstdint>

namespace ashlar::shm {

struct Mapping {
  std::uintptr_t begin;
  std::uintptr_t end;
  std::uint64_t offset;  // in the file
  std::uint64_t device;
  std::uint64_t inode;  // 0: there is no file
  bool writable;
  bool shared;
  char path[PATH_MAX];  // as it was when it was mapped; "... (deleted)" when its name is gone

  std::uint64_t file_offset(const void* p) const {
    return offset + (reinterpret_cast<std::uintptr_t>(p) - begin);
  }
  bool is_same_file(const Mapping& other) const {
    return inode != 0 && inode == other.inode && device == other.device;
  }
};

// False: nothing is mapped there.
[[nodiscard]] bool find_mapping(const void* p, Mapping& mapping);

// A new descriptor of that mapping's file, to read and write; −1: there is none to be had.
int open_file_of(const Mapping& mapping);

}  // namespace ashlar::shm
