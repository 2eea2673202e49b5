// SPDX-License-Identifier: MIT
#include "pages.h"

namespace ashlar::shm {

namespace {

// How often to look again at a chunk that is held: a microsecond or two, longer than any work on
// it takes, unless its holder does not run.
constexpr int kSpins = 40;

std::uint32_t chunks_of(PageCount pages) {
  return static_cast<std::uint32_t>(divide_up(pages.v, kPagesPerChunk));
}

}  // namespace

void Pages::attach(const Segment& segment) {
  segment_ = &segment;
  const Geometry& g = segment.geometry();
  words_ = &segment.at<ChunkWord>(Geometry::kChunkWords);
  meta_ = &segment.at<SharedChunk>(g.chunk_metadata);
  buddy_ = Buddy{reinterpret_cast<std::byte*>(&meta_->core.rows), sizeof(SharedChunk),
                 &segment.at<std::atomic<std::uint32_t>>(g.summaries), &chunks_, &totals_};
  refresh();
}

std::uint32_t Pages::all_chunks() const {
  const std::uint32_t now = segment_->at<State>(Geometry::kState).chunks.load();
  return now < segment_->max_chunks() ? now : segment_->max_chunks();
}

void Pages::refresh() {
  chunks_.store(all_chunks());
  data_bytes_.store(Bytes{chunks()} * kChunkBytes);
}

// --- holding chunks -----------------------------------------------------------------------------

bool Pages::hold(ChunkIndex chunk, std::uint32_t lane) {
  std::atomic<ChunkState>& w = word(chunk);
  for (int spin = 0; spin < kSpins; spin++) {
    ChunkState state = w.load();
    if (state.holder == 0) {
      ChunkState mine = state;
      mine.holder = static_cast<std::uint16_t>(lane + 1);
      mine.version++;
      if (w.compare_exchange_strong(state, mine)) return true;
    }
    os::pause();
  }
  return false;
}

// Whoever marks the chunk while we let go makes the exchange fail, and we look after it.
void Pages::let_go(ChunkIndex chunk, std::uint32_t lane, bool keeps_chunk) {
  if (!keeps_chunk) drop_if_spare(chunk);
  bool retry_later = false;
  for (;;) {
    ChunkState state = word(chunk).load();
    if (state.has_freed && !retry_later) {
      ChunkState seen = state;
      seen.has_freed = false;
      if (!word(chunk).compare_exchange_strong(state, seen)) continue;
      retry_later = !give_freed(chunk, lane);
      drop_if_spare(chunk);
      continue;
    }
    ChunkState free = state;
    free.holder = 0;
    free.has_freed = state.has_freed || retry_later;
    if (word(chunk).compare_exchange_strong(state, free)) return;
  }
}

void Pages::set_backed(ChunkIndex chunk, bool backed) {
  ChunkState state = word(chunk).load();
  ChunkState next;
  do {
    next = state;
    next.backed = backed;
  } while (!word(chunk).compare_exchange_weak(state, next));
}

// --- taking -------------------------------------------------------------------------------------

PageIndex Pages::claim(std::uint32_t lane, PageCount pages, PageCount alignment) {
  refresh();
  if (pages.v > kPagesPerChunk) return claim_over_chunks(lane, pages);
  std::uint64_t tried = 0;
  for (;;) {
    const ChunkIndex chunk = buddy_.next_candidate(pages, alignment, tried);
    if (chunk.v == kNone) return {kNone};
    if (!hold(chunk, lane)) continue;
    if (word(chunk).load().backed) {
      const PageIndex first = buddy_.claim_in(chunk, pages, alignment);
      if (first.v != kNone) return first;
    }
    let_go(chunk, lane);
  }
}

void Pages::commit(std::uint32_t lane, PageIndex first, PageCount pages, BlockKind kind) {
  buddy_.set_block(first, pages, kind);
  const std::uint32_t chunk = chunk_of(first).v;
  for (std::uint32_t i = 0; i < chunks_of(pages); i++) let_go(ChunkIndex{chunk + i}, lane);
}

// First fit among whole chunks in a row; chunks without memory will do, they get some.
PageIndex Pages::claim_over_chunks(std::uint32_t lane, PageCount pages) {
  const std::uint32_t needed = chunks_of(pages);
  std::uint32_t run = 0;
  for (std::uint32_t c = 0; c < chunks(); c++) {
    const bool last = run + 1 == needed;
    const std::uint32_t wanted = last ? pages.v - run * kPagesPerChunk : kPagesPerChunk;
    const bool fits =
        !word(ChunkIndex{c}).load().backed || buddy_.free_pages_in(ChunkIndex{c}) >= wanted;
    run = fits ? run + 1 : 0;
    if (run < needed) continue;
    const ChunkIndex first{c + 1 - needed};
    if (claim_from(first, lane, pages)) return first_page(first);
    c = first.v;  // begin again one chunk further on
    run = 0;
  }
  return {kNone};
}

bool Pages::claim_from(ChunkIndex first, std::uint32_t lane, PageCount pages) {
  const std::uint32_t needed = chunks_of(pages);
  std::uint32_t held = 0;
  bool ready = true;
  for (; held < needed && ready; held++) {
    const ChunkIndex chunk{first.v + held};
    if (!hold(chunk, lane)) break;
    ready = word(chunk).load().backed || back_chunk(chunk);
  }
  if (held == needed && ready && buddy_.claim_run(first_page(first), pages)) return true;
  while (held-- > 0) let_go(ChunkIndex{first.v + held}, lane);
  return false;
}

// --- giving -------------------------------------------------------------------------------------

PageCount Pages::pages_of(PageIndex first, BlockKind kind) const {
  if (first.v >= chunks() * kPagesPerChunk || buddy_.kind_at(first) != kind) return {0};
  const PageCount pages = buddy_.pages_at(first);
  std::uint32_t room = chunks() * kPagesPerChunk - first.v;
  const std::uint32_t position = first.v % kPagesPerChunk;
  if (position != 0) {
    room = kPagesPerChunk - position;  // only blocks that begin with a chunk are longer
  } else if (pages.v > room) {
    // Another process may have made the last of its chunks.
    room = all_chunks() * kPagesPerChunk - first.v;
  }
  return pages.v <= room ? pages : PageCount{0};
}

bool Pages::begin_give(std::uint32_t lane, PageIndex first, PageCount pages) {
  if (!hold(chunk_of(first), lane)) return false;
  if (pages_of(first, BlockKind::slab) != pages) {
    let_go(chunk_of(first), lane);
    return false;
  }
  buddy_.clear_block(first);
  return true;
}

void Pages::end_give(std::uint32_t lane, PageIndex first, PageCount pages, bool keeps_chunk) {
  buddy_.release_run(first, pages);
  let_go(chunk_of(first), lane, keeps_chunk);
}

bool Pages::give_large(std::uint32_t lane, PageIndex first) {
  if (pages_of(first, BlockKind::large).v == 0) return false;
  freeing(lane).store(first.v + 1);
  const bool given = buddy_.exchange_kind(first, BlockKind::large, BlockKind::cached);
  finish_giving(lane);
  return given;
}

// A block that is `cached` in a chunk that says nothing of it would stay so.
void Pages::finish_giving(std::uint32_t lane) {
  const PageIndex first{freeing(lane).load() - 1};
  if (first.v == kNone) return;
  if (pages_of(first, BlockKind::cached).v != 0) {
    mark_freed(chunk_of(first));
    if (hold(chunk_of(first), lane)) let_go(chunk_of(first), lane);
  }
  freeing(lane).store(0);
}

void Pages::mark_freed(ChunkIndex chunk) {
  std::atomic<ChunkState>& w = word(chunk);
  ChunkState state = w.load();
  ChunkState next;
  do {
    next = state;
    next.has_freed = true;
  } while (!w.compare_exchange_weak(state, next));
}

// In a chunk that the caller holds. False: a part of some block is held by others.
bool Pages::give_freed(ChunkIndex chunk, std::uint32_t lane) {
  bool all = true;
  const std::uint32_t begin = first_page(chunk).v;
  for (std::uint32_t page = begin; page < begin + kPagesPerChunk; page++) {
    if (buddy_.kind_at(PageIndex{page}) == BlockKind::cached) {
      all &= give_freed_block(PageIndex{page}, lane);
    }
  }
  return all;
}

bool Pages::give_freed_block(PageIndex first, std::uint32_t lane) {
  const PageCount pages = pages_of(first, BlockKind::cached);
  if (pages.v == 0) return true;  // not sane; nothing will make it so
  const ChunkIndex chunk = chunk_of(first);
  const std::uint32_t needed = chunks_of(PageCount{first.v % kPagesPerChunk + pages.v});
  std::uint32_t held = 1;
  while (held < needed && hold(ChunkIndex{chunk.v + held}, lane)) held++;
  if (held == needed) {
    buddy_.clear_block(first);
    buddy_.release_run(first, pages);
  }
  const bool given = held == needed;
  while (--held > 0) let_go(ChunkIndex{chunk.v + held}, lane);
  return given;
}

bool Pages::resize(std::uint32_t lane, PageIndex first, PageCount pages) {
  const PageCount old = pages_of(first, BlockKind::large);
  if (old.v == 0) return false;
  if (old == pages) return true;
  // Only where one chunk is concerned; others are copied.
  const std::uint32_t position = first.v % kPagesPerChunk;
  if (position + old.v > kPagesPerChunk || position + pages.v > kPagesPerChunk) return false;
  const ChunkIndex chunk = chunk_of(first);
  if (!hold(chunk, lane)) return false;
  bool zero = false;
  const bool resized =
      pages_of(first, BlockKind::large) == old && buddy_.resize(first, pages, zero);
  let_go(chunk, lane);
  return resized;
}

bool Pages::sweep(std::uint32_t lane) {
  bool any = false;
  for (std::uint32_t c = 0; c < chunks(); c++) {
    if (!word(ChunkIndex{c}).load().has_freed || !hold(ChunkIndex{c}, lane)) continue;
    let_go(ChunkIndex{c}, lane);
    any = true;
  }
  return any;
}

// --- chunks come and go -------------------------------------------------------------------------

bool Pages::grow(std::uint32_t lane, PageCount pages) {
  refresh();
  const std::uint32_t needed = chunks_of(pages);
  if (needed == 1) {
    for (std::uint32_t c = 0; c < chunks(); c++) {
      const ChunkState state = word(ChunkIndex{c}).load();
      if (state.backed || state.holder != 0 || !hold(ChunkIndex{c}, lane)) continue;
      const bool was_backed = word(ChunkIndex{c}).load().backed;
      const bool backed = was_backed || back_chunk(ChunkIndex{c});
      // Without the check for a spare one, which it is.
      ChunkState held = word(ChunkIndex{c}).load();
      ChunkState free;
      do {
        free = held;
        free.holder = 0;
      } while (!word(ChunkIndex{c}).compare_exchange_weak(held, free));
      return backed;
    }
  }
  const std::uint32_t from = chunks();
  const std::uint32_t to = from + needed;
  if (to > segment_->max_chunks() || !back_metadata(from, to)) return false;
  raise_to(segment_->at<State>(Geometry::kState).chunks, to);
  refresh();
  return needed > 1 || grow(lane, pages);
}

bool Pages::back_chunk(ChunkIndex chunk) {
  const Offset at = segment_->geometry().data + Bytes{chunk.v} * kChunkBytes;
  if (segment_->back(at, kChunkBytes) != 0) return false;
  buddy_.rebuild_chunk(chunk, 0);
  set_backed(chunk, true);
  return true;
}

// Safe to repeat and to race: memory that is there stays as it is.
bool Pages::back_metadata(std::uint32_t from, std::uint32_t to) {
  const Geometry& g = segment_->geometry();
  const auto back = [&](Offset zone, Bytes bytes_per_chunk) {
    const Offset begin = align_down(zone + from * bytes_per_chunk, kPageBytes);
    const Offset end = align_up(zone + to * bytes_per_chunk, kPageBytes);
    return segment_->back(begin, end - begin) == 0;
  };
  return back(Geometry::kChunkWords, sizeof(ChunkWord)) &&
         back(g.table, Geometry::kTableBytesPerChunk) &&
         back(g.summaries, Geometry::kSummaryBytesPerChunk) &&
         back(g.chunk_metadata, sizeof(SharedChunk));
}

// Of a chunk that is held and all free, if another one is all free.
bool Pages::leave_if_spare(ChunkIndex chunk) {
  if (segment_->fixed_size() || buddy_.free_pages_in(chunk) != kPagesPerChunk) return false;
  bool spare = false;
  for (std::uint32_t c = 0; c < chunks() && !spare; c++) {
    spare = c != chunk.v && buddy_.free_pages_in(ChunkIndex{c}) == kPagesPerChunk;
  }
  if (!spare || !buddy_.claim_run(first_page(chunk), PageCount{kPagesPerChunk})) return false;
  buddy_.clear_chunk(chunk);
  set_backed(chunk, false);
  return true;
}

void Pages::drop_if_spare(ChunkIndex chunk) {
  if (!leave_if_spare(chunk)) return;
  segment_->unback(segment_->geometry().data + Bytes{chunk.v} * kChunkBytes, kChunkBytes);
}

bool Pages::leave_chunk(ChunkIndex chunk, std::uint32_t lane) {
  if (buddy_.free_pages_in(chunk) != kPagesPerChunk || !hold(chunk, lane)) return false;
  const bool leaves = leave_if_spare(chunk);
  let_go(chunk, lane, true);
  return leaves;
}

bool Pages::drop_piece(ChunkIndex chunk, std::uint32_t piece, std::uint32_t lane) {
  constexpr Bytes kPieceBytes = kChunkBytes / kPieces;
  if (chunk.v >= chunks() || piece >= kPieces || !hold(chunk, lane)) return false;
  const bool leaves = !word(chunk).load().backed;
  const Offset at = segment_->geometry().data + Bytes{chunk.v} * kChunkBytes + piece * kPieceBytes;
  if (leaves) segment_->unback(at, kPieceBytes);
  let_go(chunk, lane);
  return leaves;
}

// --- death --------------------------------------------------------------------------------------

std::uint32_t Pages::covered(ChunkIndex chunk) const {
  for (std::uint32_t back = 1; back <= chunk.v; back++) {
    const ChunkIndex earlier{chunk.v - back};
    if (!word(earlier).load().backed) return 0;
    const PageIndex first = first_page(earlier);
    if (buddy_.kind_at(first) == BlockKind::none) continue;
    const std::uint64_t end = buddy_.pages_at(first).v;
    const std::uint64_t begin = std::uint64_t{back} * kPagesPerChunk;
    if (end <= begin) return 0;
    return end - begin < kPagesPerChunk ? static_cast<std::uint32_t>(end - begin) : kPagesPerChunk;
  }
  return 0;
}

// All are rebuilt before the first is let go, since a block may lie in several.
void Pages::repair(std::uint32_t lane) {
  refresh();
  const auto is_held = [&](std::uint32_t c) {
    return word(ChunkIndex{c}).load().holder == lane + 1;
  };
  for (std::uint32_t c = 0; c < chunks(); c++) {
    if (!is_held(c)) continue;
    if (word(ChunkIndex{c}).load().backed) {
      buddy_.rebuild_chunk(ChunkIndex{c}, covered(ChunkIndex{c}));
    } else {
      buddy_.clear_chunk(ChunkIndex{c});
      if (!segment_->fixed_size()) {
        segment_->unback(segment_->geometry().data + Bytes{c} * kChunkBytes, kChunkBytes);
      }
    }
  }
  for (std::uint32_t c = 0; c < chunks(); c++) {
    if (!is_held(c)) continue;
    mark_freed(ChunkIndex{c});  // it may have cleared the mark, and not yet looked
    let_go(ChunkIndex{c}, lane);
  }
}

}  // namespace ashlar::shm
