// SPDX-License-Identifier: MIT
// L4 · large_hits: the short way of a large block that comes and goes, a buffer for input or
// output.
//
// What:    the block that a thread freed last is taken again, and one that fits into what it may
//          keep is kept. Anything else is for the long way, Heap::take_large and give_large.
// How:     no word is computed from what the call before has stored to it, the count apart, so that
//          a free and the malloc after it do not wait for each other.
// Checks:  the block's word says whether it is in use. So a block that is freed twice is found at
//          once, whoever frees it, and so is the inside of one.
// Threads: any, for itself.
// Not here: what is searched, thrown out or given back (large_cache.cpp).
#pragma once

#include "maintenance.h"
#include "sampler.h"
#include "thread_cache.h"

namespace ashlar {

// A block of as many pages as the request has, or null.
inline void* take_last_large(Bytes bytes) {
  Lane* const lane = this_lane();
  if (lane == nullptr || bytes > bytes_of(LargeCache::kMostPagesOfOne) || Sampler::is_on())
    return nullptr;
  const TryEntered entered(*lane);
  if (!entered) return nullptr;
  LargeCache& cache = lane->large;
  const std::uint32_t count = cache.count;
  const PageCount pages = pages_for(bytes);
  if (count == 0 || cache.pages[count - 1] != pages.v) return nullptr;
  void* const p = cache.block[count - 1];
  cache.used = true;
  cache.count = count - 1;
  if (!arena.change_kind(p, pages, BlockKind::cached, BlockKind::large)) [[unlikely]]
    LargeCache::report_change("malloc");
  return p;
}

// False: this is not the way for p, which is in the arena.
[[nodiscard]] inline bool keep_last_large(void* p) {
  Lane* const lane = this_lane();
  if (lane == nullptr || Sampler::is_on()) return false;
  const TryEntered entered(*lane);
  if (!entered) return false;
  LargeCache& cache = lane->large;
  const PageCount pages = arena.change_kind(p, BlockKind::large, BlockKind::cached, cache.room());
  if (pages.v == 0) return false;
  cache.push(p, pages);
  return true;
}

}  // namespace ashlar
