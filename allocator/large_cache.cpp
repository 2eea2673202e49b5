// SPDX-License-Identifier: MIT
// The large blocks that a thread freed last, kept at hand with their pages.
#include "heap.h"
#include "lane_parts.h"
#include "maintenance.h"
#include "sampler.h"

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
  cache.bytes -= bytes_of(PageCount{cache.pages[i]});
  if (i + 1 == cache.count) [[likely]] {
    cache.count = i;
  } else {
    close_gap(cache, i);
  }
  return p;
}

[[gnu::noinline]] void make_room_slow(Lane& lane, Bytes bytes) {
  LargeCache& cache = lane.large;
  while (cache.count == LargeCache::kBlocks || cache.bytes + bytes > LargeCache::kMostBytes) {
    flush_oldest_large(lane);
  }
}

}  // namespace

void flush_oldest_large(Lane& lane) {
  void* const oldest = remove_large(lane.large, 0);
  if (!arena.give_pages(oldest, BlockKind::cached, lane.slabs.contents())) {
    fatal("free(): a freed large block was changed");
  }
}

void* take_recent_large(PageCount pages) {
  Lane* const lane = this_lane();
  if (lane == nullptr || lane->large.count == 0) return nullptr;
  Entered entered(*lane);
  LargeCache& cache = lane->large;
  for (std::uint32_t i = cache.count; i-- > 0;) {
    if (cache.pages[i] != pages.v) continue;
    cache.used = true;
    void* const p = remove_large(cache, i);
    if (arena.change_kind(p, BlockKind::cached, BlockKind::large).v != pages.v) {
      fatal("malloc(): a freed large block was changed");
    }
    return p;
  }
  return nullptr;
}

bool keep_recent_large(void* p) {
  constexpr PageCount kMostPages = pages_for(LargeCache::kMostBytes / 2);
  Lane* const lane = heap.lane_for_this_thread();
  if (lane == nullptr) return false;
  maintenance.notice_activity();
  Entered entered(*lane);
  const PageCount pages = arena.change_kind(p, BlockKind::large, BlockKind::cached, kMostPages);
  if (pages.v == 0) return false;
  LargeCache& cache = lane->large;
  const Bytes bytes = bytes_of(pages);
  if (cache.count == LargeCache::kBlocks || cache.bytes + bytes > LargeCache::kMostBytes) {
    make_room_slow(*lane, bytes);
  }
  const std::uint32_t count = cache.count;
  cache.bytes += bytes;
  cache.block[count] = p;
  cache.pages[count] = pages.v;
  std::atomic_signal_fence(std::memory_order_release);  // fork sees the block or the old count
  cache.count = count + 1;
  return true;
}

}  // namespace ashlar
