// SPDX-License-Identifier: MIT
// How the pages of a large block become another one's without being copied, and what that leaves.
//
// The kernel moves page tables, a whole one a chunk where both blocks start at a chunk: 20 µs and
// half a microsecond a chunk. What the target has in memory is not thrown away, but goes the
// opposite way. Pages that were moved stand for their old positions in a mapping ever after and
// never merge with their neighbours, and a process may have no more than 65,530 mappings. A chunk
// with such pages is torn. It is used like others, so that its pages stay in memory when they are
// freed; when all of it is free and purged, it gets a new mapping.
#include "arena.h"

namespace ashlar {

namespace {

// Below, a copy is as fast.
constexpr PageCount kLeastMoved{kPagesPerChunk};
// Two mappings end in each at most, and the program needs some of its own.
constexpr std::uint32_t kMostTornChunks = 16 * 1024;

}  // namespace

void* Arena::take_pages_with_room(PageCount pages) {
  Block block = buddy_.take_in_memory(pages, BlockKind::large);
  if (!block) block = buddy_.take_with_room(pages, BlockKind::large);
  return block ? address_of(block.first) : nullptr;
}

// To move costs less than the page faults of a few dozen pages.
void* Arena::take_pages_in_memory(const void* from, PageCount pages) {
  const PageIndex source = page_of(from);
  const PageCount old = buddy_.pages_at(source);
  const bool ends_inside = Bytes{source.v} + pages.v <= Bytes{chunks()} * kPagesPerChunk;
  const std::uint32_t gain = pages.v - old.v;
  if (ends_inside && buddy_.count_dirty(PageIndex{source.v + old.v}, gain) >= gain / 2) {
    return nullptr;
  }
  const Block block = buddy_.take_in_memory(pages, BlockKind::large);
  return block ? address_of(block.first) : nullptr;
}

bool Arena::may_move(const void* from) const {
  return buddy_.pages_at(page_of(from)).v >= kLeastMoved.v && region_.is_ours() &&
         torn_chunks_.load(std::memory_order_relaxed) < kMostTornChunks;  // a few more do no harm
}

bool Arena::move_block(void* from, void* to) {
  const PageIndex source = page_of(from);
  const PageIndex target = page_of(to);
  const PageCount pages = buddy_.pages_at(source);
  const bool target_has_pages = buddy_.count_dirty(target, pages.v) >= pages.v / 2;
  const os::Move result = os::move_pages(from, to, bytes_of(pages), target_has_pages);
  if (result == os::Move::failed) return false;

  const bool exchanged = result == os::Move::exchanged;
  set_torn(target, pages, true);
  set_torn(source, pages, exchanged);
  const Contents left = exchanged ? Contents::recent : Contents::zero;
  const bool given = buddy_.give(source, BlockKind::large, left);
  ASHLAR_ASSERT(given);
  static_cast<void>(given);
  return true;
}

// Chunks with such pages are torn; those that have no others are whole.
void Arena::set_torn(PageIndex first, PageCount pages, bool torn) {
  const std::uint64_t end = std::uint64_t{first.v} + pages.v;
  const std::uint64_t chunks_end = torn ? divide_up(end, kPagesPerChunk) : end / kPagesPerChunk;
  auto c =
      torn ? chunk_of(first).v : static_cast<std::uint32_t>(divide_up(first.v, kPagesPerChunk));
  for (; c < chunks_end; c++) {
    if (meta(ChunkIndex{c}).rows.torn.exchange(torn) != torn) torn_chunks_ += torn ? 1 : -1;
  }
}

// From purge().
void Arena::mend(ChunkIndex chunk) {
  const PageIndex first = first_page(chunk);
  const PageCount all{kPagesPerChunk};
  if (buddy_.free_pages_in(chunk) != all.v || buddy_.count_dirty(first, all.v) != 0) return;
  if (!buddy_.claim_run(first, all)) return;
  if (os::renew_mapping(address_of(first), kChunkBytes)) {
    choose_pages(chunk.v, 1);
    set_torn(first, all, false);
  }
  buddy_.revive_chunks(chunk, 1);
}

}  // namespace ashlar
