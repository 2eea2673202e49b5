// SPDX-License-Identifier: MIT
// L6 · doors: what the doors of <ashlar/shm.h> have in common. Arguments are checked there, and
// errors become errno.
#pragma once

#include <ashlar/shm.h>

#include <cerrno>

#include "handle.h"

#define ASHLAR_PUBLIC extern "C" [[gnu::visibility("default")]]

namespace ashlar::shm {

// 0, or −1 and errno.
inline int result(int error) {
  if (error == 0) return 0;
  errno = error;
  return -1;
}

inline bool refused(const ashlar_shm* arena) {
  if (arena == nullptr) {
    errno = EINVAL;
    return true;
  }
  if (!arena->segment.read_only()) return false;
  errno = EACCES;
  return true;
}

inline bool no_slot(const ashlar_shm* arena, const ashlar_off* slot) {
  if (arena->offset(slot) != 0 && arena->offset(slot) % sizeof *slot == 0) return false;
  errno = EINVAL;
  return true;
}

}  // namespace ashlar::shm
