// SPDX-License-Identifier: MIT
// Where a block goes: the choice of a chunk, and of a place in it.
#include <utility>

#include "buddy_parts.h"

namespace ashlar {

namespace {

// Blocks of so many pages start at a chunk, so that whole page tables of theirs can be moved. It
// wastes an eighth at most.
constexpr std::uint32_t kStartsAtChunk = 8 * kPagesPerChunk;

}  // namespace

Block Buddy::take(PageCount pages, PageCount alignment, BlockKind kind, std::uint64_t origin) {
  ASHLAR_ASSERT(pages.v > 0 && pages.v <= BlockWord::kPagesMask);
  ASHLAR_ASSERT(is_power_of_two(alignment.v));
  const bool in_chunk = pages.v <= kPagesPerChunk && alignment.v <= kPagesPerChunk;
  const std::uint32_t least = pages.v >= kStartsAtChunk ? kPagesPerChunk : 1;
  const PageIndex first =
      in_chunk ? take_in_chunk(pages.v, alignment.v)
               : take_over_chunks(pages.v, alignment.v > least ? alignment.v : least, origin);
  if (first.v == kNone) return {};
  return make_block(first, pages, kind);
}

// Of pages that are claimed.
Block Buddy::make_block(PageIndex first, PageCount pages, BlockKind kind) {
  const bool zero = count_dirty(first, pages.v) == 0;
  // pairs with: give, kind_at. From here on the block is somebody's.
  block_word(first).store(BlockWord::make(kind, pages.v), std::memory_order_release);
  return {first, zero};
}

// Calls visit(chunk, summary) → bool, whether to go on, for the chunks that may have room, lowest
// first. Groups that have none are passed over.
template <class Visit>
void Buddy::for_each_candidate(std::uint32_t pages, std::uint32_t alignment, Visit&& visit) {
  const std::uint32_t chunks = chunk_count();
  for (std::uint32_t c = 0; c < chunks;) {
    const std::uint32_t group = c / kChunksPerGroup;
    const std::uint32_t group_end = (group + 1) * kChunksPerGroup;
    const bool known = group < group_count_;
    // A hint, like the summaries: claim() decides.
    if (known &&
        !Summary::of(groups_[group].load(std::memory_order_relaxed)).may_fit(pages, alignment)) {
      c = group_end;
      continue;
    }
    bool any = false;
    for (; c < chunks && c < group_end; c++) {
      const auto summary = Summary::of(summaries_[c].load(std::memory_order_relaxed));
      if (!summary.may_fit(pages, alignment)) continue;
      any = true;
      if (!visit(ChunkIndex{c}, summary)) return;
    }
    if (known && !any) learn_group(group);
  }
}

// Candidates in the order (free pages, index): the fullest chunk first, and among equals the lowest
// address. A scan of the summaries yields the next few; each is tried once. The choice is among the
// first thousand, so that a large heap with room everywhere is not read to its end. A slab goes
// where pages are in memory, if there is such a place in the fullest few. Where only few places in
// a chunk will do, summaries say little, and the first chunk that fits serves.
PageIndex Buddy::take_in_chunk(std::uint32_t pages, std::uint32_t alignment) {
  constexpr std::uint32_t kCandidates = 8;
  constexpr std::uint32_t kStrictAlignment = 4 * kPagesPerUnit;
  constexpr std::uint32_t kMostUntried = 1024;
  constexpr std::uint64_t kNoRank = ~std::uint64_t{0};
  if (alignment > kStrictAlignment) return take_first_fit(pages, alignment);
  bool seen_all = true;
  std::uint64_t tried = 0;  // ranks below this
  for (;;) {
    std::uint64_t best[kCandidates];  // ascending
    for (std::uint64_t& rank : best) rank = kNoRank;
    std::uint32_t untried = 0;
    for_each_candidate(pages, alignment, [&](ChunkIndex chunk, Summary summary) {
      std::uint64_t rank = std::uint64_t{summary.free} << 32 | chunk.v;
      if (rank < tried) return true;
      if (rank < best[kCandidates - 1]) {
        for (std::uint64_t& other : best) {
          if (rank < other) std::swap(rank, other);
        }
      }
      seen_all &= ++untried < kMostUntried;
      return untried < kMostUntried;
    });
    const bool prefers_dirty = alignment >= kPagesPerUnit && dirty_pages() >= pages;
    for (const std::uint64_t rank : best) {
      if (!prefers_dirty || rank == kNoRank) break;
      const PageIndex first =
          take_dirty_in(ChunkIndex{static_cast<std::uint32_t>(rank)}, pages, alignment);
      if (first.v != kNone) return first;
    }
    for (const std::uint64_t rank : best) {
      if (rank == kNoRank) return seen_all ? PageIndex{kNone} : take_first_fit(pages, alignment);
      const PageIndex first =
          take_in(ChunkIndex{static_cast<std::uint32_t>(rank)}, pages, alignment);
      if (first.v != kNone) return first;
    }
    tried = best[kCandidates - 1] + 1;
  }
}

PageIndex Buddy::take_first_fit(std::uint32_t pages, std::uint32_t alignment) {
  PageIndex first{kNone};
  for_each_candidate(pages, alignment, [&](ChunkIndex chunk, Summary) {
    first = take_in(chunk, pages, alignment);
    return first.v == kNone;
  });
  return first;
}

PageIndex Buddy::take_dirty_in(ChunkIndex chunk, std::uint32_t pages, std::uint32_t alignment) {
  RowCopy row(rows(chunk).free);
  row &= RowCopy(rows(chunk).dirty);
  const std::uint32_t at = row.find(pages, alignment);
  const PageIndex first{first_page(chunk).v + at};
  return at != kNone && claim(first, pages) ? first : PageIndex{kNone};
}

PageIndex Buddy::take_in(ChunkIndex chunk, std::uint32_t pages, std::uint32_t alignment) {
  for (;;) {
    // pairs with: recount. Older than the row that is read next, so that learn() is careful.
    const std::uint32_t seen = summaries_[chunk.v].load(std::memory_order_acquire);
    const std::uint32_t at = RowCopy(rows(chunk).free).find(pages, alignment);
    if (at == kNone) {
      learn(chunk, seen, pages, alignment);
      return {kNone};
    }
    const PageIndex first{first_page(chunk).v + at};
    if (claim(first, pages)) return first;
  }
}

// A hint: claim() decides, and is slow to find out.
bool Buddy::is_run_free(PageIndex first, std::uint32_t pages) const {
  bool free = true;
  for_each_chunk(first, pages, [&](PageIndex at, std::uint32_t position, std::uint32_t count) {
    const ChunkRows& row = rows(at);
    for_each_word(position, count, [&](std::uint32_t w, std::uint64_t mask) {
      free &= (row.free[w].load(std::memory_order_relaxed) & mask) == mask;
    });
  });
  return free;
}

// First fit. One chunk has at least half of the block, or all of its own pages: there the run is
// found, which may begin in the chunk before it.
PageIndex Buddy::take_over_chunks(std::uint32_t pages, std::uint64_t alignment,
                                  std::uint64_t origin) {
  const std::uint32_t half = (pages + 1) / 2;
  const std::uint32_t piece = half < kPagesPerChunk ? half : kPagesPerChunk;
  PageIndex found{kNone};
  const auto take_at = [&](std::uint32_t page) {
    const std::uint64_t first = align_up(origin + page, alignment) - origin;
    if (first + pages > std::uint64_t{chunk_count()} * kPagesPerChunk) return false;
    const PageIndex at{static_cast<std::uint32_t>(first)};
    if (!is_run_free(at, pages) || !claim(at, pages)) return false;
    found = at;
    return true;
  };
  // So many chunks are all its own, wherever it begins: the summaries tell.
  const std::uint32_t whole =
      (pages < kPagesPerChunk ? 0 : pages - (kPagesPerChunk - 1)) / kPagesPerChunk;
  for_each_candidate(piece, 1, [&](ChunkIndex chunk, Summary) {
    if (chunk.v + whole > chunk_count()) return false;
    for (std::uint32_t i = 0; i < whole; i++) {
      if (!is_free(ChunkIndex{chunk.v + i})) return true;
    }
    // pairs with: recount, as in take_in
    const std::uint32_t seen = summaries_[chunk.v].load(std::memory_order_acquire);
    const RowCopy row(rows(chunk).free);
    if (row.longest_run() < piece) {
      learn(chunk, seen, piece, 1);
      return true;
    }
    const std::uint32_t begin = first_page(chunk).v;
    const std::uint32_t before =
        chunk.v == 0 ? 0 : RowCopy(rows(ChunkIndex{chunk.v - 1}).free).tail();
    return !take_at(begin - before) && !take_at(begin + kPagesPerChunk - row.tail());
  });
  return found;
}

// Takes a block at the start of the longest run of chunks for which is_wanted(chunk), if that has
// at least so many. A block in front of the run may grow, too, and is left as much of it as the new
// one.
template <class IsWanted>
Block Buddy::take_in_longest_run(PageCount pages, BlockKind kind, std::uint32_t least,
                                 IsWanted&& is_wanted) {
  struct {
    std::uint32_t first = 0, count = 0;
  } longest, run;
  const std::uint32_t chunks = chunk_count();
  for (std::uint32_t c = 0; c < chunks; c++) {
    if (!is_wanted(ChunkIndex{c})) {
      run = {};
      continue;
    }
    if (run.count++ == 0) run.first = c;
    if (run.count > longest.count) longest = run;
  }
  if (longest.count < least) return {};
  const bool has_neighbour = longest.first != 0 && !is_free(ChunkIndex{longest.first - 1});
  const std::uint32_t left = has_neighbour ? (longest.count - chunks_for(pages)) / 2 : 0;
  const PageIndex first = first_page(ChunkIndex{longest.first + left});
  return claim(first, pages.v) ? make_block(first, pages, kind) : Block{};
}

Block Buddy::take_with_room(PageCount pages, BlockKind kind) {
  return take_in_longest_run(pages, kind, 2 * chunks_for(pages),
                             [&](ChunkIndex c) { return is_free(c); });
}

Block Buddy::take_in_memory(PageCount pages, BlockKind kind) {
  if (dirty_pages() < pages.v / 2) return {};
  return take_in_longest_run(pages, kind, chunks_for(pages), [&](ChunkIndex c) {
    return is_free(c) && count_dirty(first_page(c), kPagesPerChunk) >= kPagesPerChunk / 2;
  });
}

// A search for `pages` at `alignment` found nothing in the chunk whose summary was `seen`.
void Buddy::learn(ChunkIndex chunk, std::uint32_t seen, std::uint32_t pages,
                  std::uint32_t alignment) {
  Summary next = Summary::of(seen);
  // A run of pages + alignment - 1 would have held an aligned one.
  const std::uint32_t longest = pages + alignment - 2;
  if (longest < next.longest) next.longest = longest & 0x3ff;
  if (pages == kPagesPerUnit && alignment == kPagesPerUnit) next.has_unit = 0;
  // Fails when anything changed since, and that is right: the news may be stale.
  summaries_[chunk.v].compare_exchange_strong(seen, next.word());
}

// A search found no room in any chunk of the group. Who lowers its bounds looks at the summaries
// once more afterwards; who releases pages writes the summary, then looks at the bounds. All of it
// is seq_cst, so one of them sees the other. Chunks that are not counted yet may be read: they are
// zero, or will lift the group.
void Buddy::learn_group(std::uint32_t group) {
  const auto most = [&] {
    Summary bound{};
    for (std::uint32_t c = group * kChunksPerGroup; c < (group + 1) * kChunksPerGroup; c++) {
      const auto s = Summary::of(summaries_[c].load());  // pairs with: recount, add_chunks
      const std::uint32_t longest = s.longest < s.free ? s.longest : s.free;
      if (s.free > bound.free) bound.free = s.free;
      if (longest > bound.longest) bound.longest = longest & 0x3ff;
      if (s.free >= kPagesPerUnit) bound.has_unit |= s.has_unit;
    }
    return bound;
  };
  const Summary bound = most();
  groups_[group].store(bound.word());
  const Summary now = most();
  if (now.free > bound.free || now.longest > bound.longest || now.has_unit > bound.has_unit) {
    groups_[group].store(Summary::all_free().word());
  }
}

// A chunk's summary was raised.
void Buddy::lift_group(ChunkIndex chunk) {
  const std::uint32_t group = chunk.v / kChunksPerGroup;
  const std::uint32_t any_room = Summary::all_free().word();
  if (group < group_count_ && groups_[group].load() != any_room) groups_[group].store(any_room);
}

void Buddy::lift_groups() {
  for (std::uint32_t c = 0; c < chunk_count(); c += kChunksPerGroup) lift_group(ChunkIndex{c});
}

ChunkIndex Buddy::next_candidate(PageCount pages, PageCount alignment, std::uint64_t& tried) const {
  std::uint64_t best = ~std::uint64_t{0};
  const std::uint32_t chunks = chunk_count();
  for (std::uint32_t c = 0; c < chunks; c++) {
    // A hint: claim() decides.
    const auto summary = Summary::of(summaries_[c].load(std::memory_order_relaxed));
    const std::uint64_t rank = std::uint64_t{summary.free} << 32 | c;
    if (summary.may_fit(pages.v, alignment.v) && rank >= tried && rank < best) best = rank;
  }
  tried = best + 1;
  return {static_cast<std::uint32_t>(best)};
}

}  // namespace ashlar
