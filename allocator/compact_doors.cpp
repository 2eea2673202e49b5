// SPDX-License-Identifier: MIT
// L6 · the doors to compaction (ashlar/compact.h); compact has the rooms.
#include "ashlar/compact.h"

#include <cerrno>

#include "compact.h"
#include "door.h"

using namespace ashlar;

ASHLAR_DOOR unsigned ashlar_frag_hint(const void* p) { return compactor.hint(p); }

ASHLAR_DOOR void ashlar_frag_hint_batch(const void* const* objects, size_t n, uint8_t* scores) {
  compactor.renew_plan();
  for (size_t i = 0; i < n; i++) scores[i] = arena.score_of(objects[i]);
}

ASHLAR_DOOR void* ashlar_frag_move(void* p) {
  const int saved_errno = errno;
  void* const to = compactor.move(p);
  errno = saved_errno;
  return to;
}
