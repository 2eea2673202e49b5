// SPDX-License-Identifier: MIT
// Many slots of one class at once.
#pragma once

#include <vector>

#include "thread_cache.h"

namespace ashlar::test {

inline std::vector<void*> take(ClassIndex c, std::size_t count) {
  std::vector<void*> slots(count);
  for (void*& slot : slots) slot = take_slot(c);
  return slots;
}

inline void give(const std::vector<void*>& slots) {
  for (void* slot : slots) give_slot(slot);
}

}  // namespace ashlar::test
