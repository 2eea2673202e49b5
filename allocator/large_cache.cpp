// SPDX-License-Identifier: MIT
// The large blocks that a thread freed last, kept at hand with their pages.
#include "heap.h"
#include "lane_parts.h"
#include "large_hits.h"

namespace ashlar {

namespace {

// Takes an entry out from among others; a child that is forked meanwhile does not believe them.
[[gnu::noinline]] void close_gap(LargeCache& cache, std::uint32_t i) {
  cache.shifting = true;
  std::atomic_signal_fence(std::memory_order_seq_cst);
  const std::uint32_t count = cache.count - 1;
  for (; i < count; i++) {
    cache.block[i] = cache.block[i + 1];
    cache.pages[i] = cache.pages[i + 1];
  }
  cache.count = count;
  std::atomic_signal_fence(std::memory_order_seq_cst);
  cache.shifting = false;
}

void* remove_large(LargeCache& cache, std::uint32_t i) {
  void* const p = cache.block[i];
  if (i + 1 == cache.count) {
    cache.count = i;
  } else {
    close_gap(cache, i);
  }
  return p;
}

// A block of exactly that many pages that this thread freed lately, or null.
void* take_recent(PageCount pages) {
  Lane* const lane = this_lane();
  if (lane == nullptr || lane->large.count == 0) return nullptr;
  const Entered entered(*lane);
  LargeCache& cache = lane->large;
  for (std::uint32_t i = cache.count; i-- > 0;) {
    if (cache.pages[i] != pages.v) continue;
    cache.used = true;
    void* const p = remove_large(cache, i);
    if (!arena.change_kind(p, pages, BlockKind::cached, BlockKind::large)) {
      LargeCache::report_change("malloc");
    }
    return p;
  }
  return nullptr;
}

// Keeps the large block that starts at p at hand. False: it is not for keeping.
bool keep_recent(void* p) {
  Lane* const lane = heap.lane_for_this_thread();
  if (lane == nullptr) return false;
  const Entered entered(*lane);
  const PageCount pages =
      arena.change_kind(p, BlockKind::large, BlockKind::cached, LargeCache::kMostPagesOfOne);
  if (pages.v == 0) return false;
  while (lane->large.room() < pages) flush_oldest_large(*lane);
  lane->large.push(p, pages);
  return true;
}

}  // namespace

void LargeCache::report_change(std::string_view caller) {
  Text text;
  fatal(text.put(caller).put("(): a freed large block was changed"));
}

void flush_oldest_large(Lane& lane) {
  void* const oldest = remove_large(lane.large, 0);
  if (!arena.give_pages(oldest, BlockKind::cached, lane.slabs.contents())) {
    LargeCache::report_change("free");
  }
}

void* Heap::take_large(Bytes bytes) {
  void* const p = take_last_large(bytes);
  return p != nullptr ? p : take_large_slow(bytes);
}

void* Heap::take_large_slow(Bytes bytes) {
  bool zero = false;
  return take_large(bytes, kPageBytes, zero);
}

void* Heap::take_large(Bytes bytes, Bytes alignment, bool& zero) {
  zero = false;
  if (bytes <= bytes_of(LargeCache::kMostPagesOfOne) && alignment <= kPageBytes) {
    const PageCount pages = pages_for(bytes);
    if (void* const p = take_recent(pages)) return sampled_large_if_due(p, bytes_of(pages), bytes);
  }
  void* const p = take_new_large(bytes, alignment, zero);
  if (p != nullptr) maintenance.make_up_for(pages_for(bytes));
  return p;
}

bool Heap::give_large(void* p) {
  if (Sampler::is_on()) [[unlikely]]
    sampler.forget_large(p);
  maintenance.notice_activity();
  if (keep_recent(p)) return true;
  if (!arena.give_pages(p, BlockKind::large)) return false;
  maintenance.tick(this_lane(), true);
  return true;
}

}  // namespace ashlar
