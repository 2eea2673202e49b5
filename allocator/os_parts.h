// SPDX-License-Identifier: MIT
// L0 · os_parts: what os.cpp and os_move.cpp, which moves pages, have in common. For nobody else.
#pragma once

#include <cerrno>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "os.h"

#ifndef MAP_FIXED_NOREPLACE
#define MAP_FIXED_NOREPLACE 0x100000
#endif
#ifndef MREMAP_DONTUNMAP
#define MREMAP_DONTUNMAP 4
#endif
#ifndef PR_SET_VMA
#define PR_SET_VMA 0x53564d41
#define PR_SET_VMA_ANON_NAME 0
#endif

namespace ashlar::os {

class KeepErrno {
 public:
  KeepErrno() : saved_(errno) {}
  ~KeepErrno() { errno = saved_; }

 private:
  int saved_;
};

// Not MAP_NORESERVE: a request that the machine can never fill should fail at once.
inline std::byte* map(void* address, Bytes length, int protection, int flags) {
  const long result =
      ::syscall(SYS_mmap, address, length, protection, MAP_PRIVATE | MAP_ANONYMOUS | flags, -1, 0L);
  return result == -1 ? nullptr : reinterpret_cast<std::byte*>(result);
}

// So that pmap and /proc/PID/maps say whose memory it is. Old kernels refuse; no matter.
inline void name_mapping(void* address, Bytes length) {
  ::syscall(SYS_prctl, PR_SET_VMA, PR_SET_VMA_ANON_NAME, address, length, "ashlar");
}

}  // namespace ashlar::os
