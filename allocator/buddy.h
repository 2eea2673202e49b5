// SPDX-License-Identifier: MIT
// L1 · buddy: blocks of pages inside one arena.
//
// What:    hands out runs of pages and takes them back. A slab is an aligned block of 2^order
//          pages; a large object gets exactly the pages it needs and the tail stays free.
// How:     one 512-bit row per chunk, one bit per page. An aligned run of set bits *is* a free
//          block, so buddies merge the moment their bits are set and there is no tree to keep.
//          (The idea is LLFree's: Wrenger et al., USENIX ATC 2023.)
//
//            chunk 0  free  1111 0000 0000 1100 …   1 = free
//                     dirty 0001 1111 1111 1100 …   1 = may hold something other than zeros
//                     block …… 6s …… …… 2l ……       at a block's first page: pages and kind
//
//          The fullest chunk with room serves, lowest page first, so that whole chunks stay
//          whole; for a slab one of the fullest few, where pages are in memory. A summary word per
//          chunk makes that choice without reading the rows, and one for each 64 chunks passes over
//          those without room.
// Invariants (check_invariants() tests these by number, in a quiet arena):
//   1  every page is free or in exactly one block, and block words stand only at first pages
//   2  a summary counts the free bits of its row, and its bounds, and those of a group of chunks,
//      are not below the truth
//   3  an aged page is dirty
//   4  the totals are the sums over all rows
// Threads: any, without locks: rows, block words and summaries change by single atomic steps. A
//          thread that dies between two of them leaks the pages it was about to take or give,
//          and nothing else. Truth is the block words; rows and summaries can be rebuilt.
// Position: holds no addresses.
// Not here: growing the arena (arena), the system calls of purging (arena).
#pragma once

#include <atomic>

#include "bits.h"
#include "check.h"
#include "units.h"

namespace ashlar {

// `cached`: a large block that was freed and is kept at hand. `internal`: our own data. `unmapped`:
// a chunk without memory. `taken`: a chunk of addresses that belong to somebody else.
enum class BlockKind : std::uint32_t { none, slab, large, cached, internal, unmapped, taken };

// What is in pages that are given back: something that was used just now, or that was idle for a
// whole pass of age_chunk() already; or zeros.
enum class Contents : std::uint8_t { recent, idle, zero };

struct Block {
  PageIndex first = {kNone};
  bool zero = false;  // every byte reads as zero

  explicit operator bool() const { return first.v != kNone; }
};

// Pages and kind of a block in one word.
struct BlockWord {
  static constexpr std::uint32_t kKindShift = 29;
  static constexpr std::uint32_t kPagesMask = (1u << kKindShift) - 1;

  static constexpr std::uint32_t make(BlockKind kind, std::uint32_t pages) {
    return static_cast<std::uint32_t>(kind) << kKindShift | pages;
  }
  static constexpr BlockKind kind(std::uint32_t word) {
    return static_cast<BlockKind>(word >> kKindShift);
  }
  static constexpr std::uint32_t pages(std::uint32_t word) { return word & kPagesMask; }
};

inline constexpr Bytes kMostBlockBytes = bytes_of(PageCount{BlockWord::kPagesMask});

inline constexpr std::uint32_t kRowWords = kPagesPerChunk / 64;

// The buddy's share of a chunk's metadata.
struct alignas(kPageBytes) ChunkRows {
  std::atomic<std::uint64_t> free[kRowWords];        // atomic: any → any
  std::atomic<std::uint64_t> dirty[kRowWords];       // atomic: any → any
  std::atomic<std::uint64_t> aged[kRowWords];        // atomic: any → any
  std::atomic<std::uint32_t> block[kPagesPerChunk];  // atomic: holder of the block → any
  std::atomic<bool> torn;                            // atomic: the arena's, see Arena::move_block
};

// Sums over all rows. Right in a quiet arena; after a crash they may be off, so they only advise.
struct PageTotals {
  std::atomic<std::int32_t> used;   // atomic: any → any; pages in blocks
  std::atomic<std::int32_t> dirty;  // atomic: any → any; free pages that may hold something
};

class Buddy {
 public:
  Buddy() = default;
  // `rows`: the first chunk's ChunkRows, the next one `stride` bytes on. `summaries`: one zeroed
  // word per chunk. `chunk_count`: how many chunks there are now. `totals`: zero at first.
  Buddy(std::byte* rows, Bytes stride, std::atomic<std::uint32_t>* summaries,
        const std::atomic<std::uint32_t>* chunk_count, PageTotals* totals)
      : rows_(rows),
        stride_(stride),
        summaries_(summaries),
        chunk_count_(chunk_count),
        totals_(totals) {}

  // With a zeroed word for each of the first groups of chunks, a search passes over the groups that
  // have no room. Their summaries can be read to the end of the last group.
  static constexpr std::uint32_t kChunksPerGroup = 64;
  void use_groups(std::atomic<std::uint32_t>* groups, std::uint32_t count) {
    groups_ = groups;
    group_count_ = count;
  }
  // In a child process: whoever was just lowering a group's bounds is not there.
  void lift_groups();

  // A block of `pages`, its first page a multiple of `alignment` pages, counted so that page 0
  // of the arena is `origin` (matters only for alignments above a chunk). None: no room.
  [[nodiscard]] Block take(PageCount pages, PageCount alignment, BlockKind kind,
                           std::uint64_t origin = 0);
  // For a block that has outgrown its place and may grow on: in the longest run of free chunks.
  // None: it is not twice as long as the block.
  [[nodiscard]] Block take_with_room(PageCount pages, BlockKind kind);
  // The same in the longest run of free chunks that are in memory, at least half of each.
  [[nodiscard]] Block take_in_memory(PageCount pages, BlockKind kind);
  // False: no block of that kind starts there, nothing was done.
  [[nodiscard]] bool give(PageIndex first, BlockKind kind, Contents contents = Contents::recent);
  // Changes the length of a block that the caller owns. False: what follows it is not free.
  // `zero` tells whether the pages that were gained read as zero.
  [[nodiscard]] bool resize(PageIndex first, PageCount pages, bool& zero);

  // The holder of a block says what it is now. Returns its pages; 0 and nothing was done: it was
  // not of the kind `from`, or has more than `most`.
  [[nodiscard]] PageCount change_kind(PageIndex first, BlockKind from, BlockKind to,
                                      PageCount most = {BlockWord::kPagesMask}) {
    std::atomic<std::uint32_t>& head = block_word(first);
    const std::uint32_t word = head.load(std::memory_order_acquire);
    if (BlockWord::kind(word) != from || BlockWord::pages(word) > most.v) return {0};
    // A plain store: nobody else may change the word while the caller holds the block.
    // pairs with: kind_at, pages_at
    head.store(BlockWord::make(to, BlockWord::pages(word)), std::memory_order_release);
    return {BlockWord::pages(word)};
  }
  // The same of a block whose pages are known, so that what it becomes does not wait for what it
  // was. False: it was another.
  [[nodiscard]] bool change_kind(PageIndex first, PageCount pages, BlockKind from, BlockKind to) {
    std::atomic<std::uint32_t>& head = block_word(first);
    if (head.load(std::memory_order_acquire) != BlockWord::make(from, pages.v)) return false;
    head.store(BlockWord::make(to, pages.v), std::memory_order_release);  // as above
    return true;
  }

  BlockKind kind_at(PageIndex first) const {  // pairs with: take, change_kind
    return BlockWord::kind(block_word(first).load(std::memory_order_acquire));
  }
  PageCount pages_at(PageIndex first) const {  // pairs with: take, change_kind
    return {BlockWord::pages(block_word(first).load(std::memory_order_acquire))};
  }
  bool is_free(PageIndex page) const;
  std::uint32_t free_pages_in(ChunkIndex chunk) const;  // a hint
  // Whether a large object that is in use starts there.
  bool is_large(PageIndex first) const { return kind_at(first) == BlockKind::large; }
  // How many of these pages, free or just taken, were used since they were last zero.
  std::uint32_t count_dirty(PageIndex first, std::uint32_t pages) const;

  // New chunks, all pages free and zero. Their metadata is zero. Call before they are counted.
  void add_chunks(ChunkIndex first, std::uint32_t count);
  // A new chunk whose addresses belong to somebody else: one block for ever.
  void add_taken_chunk(ChunkIndex chunk);
  // Takes a chunk out of use that is all free, as one block. False: it is not.
  [[nodiscard]] bool retire_chunk(ChunkIndex chunk);
  // Brings chunks back that were retired and are zero now.
  void revive_chunks(ChunkIndex first, std::uint32_t count);

  // --- for a caller who has whole chunks to himself (see shm_arena/pages.h) ----------------

  // The chunk to try for such a block after `tried`, which starts at 0; kNone: there is none left.
  ChunkIndex next_candidate(PageCount pages, PageCount alignment, std::uint64_t& tried) const;
  // Takes pages in that chunk (kNone: no room), or exactly those, which may lie in several
  // chunks. They are in no block until set_block() says so.
  PageIndex claim_in(ChunkIndex chunk, PageCount pages, PageCount alignment) {
    return take_in(chunk, pages.v, alignment.v);
  }
  [[nodiscard]] bool claim_run(PageIndex first, PageCount pages) { return claim(first, pages.v); }
  void set_block(PageIndex first, PageCount pages, BlockKind kind) {
    // pairs with: kind_at, pages_at
    block_word(first).store(BlockWord::make(kind, pages.v), std::memory_order_release);
  }
  // The opposite of claim_in() and claim_run(), for pages that are in no block any more.
  void release_run(PageIndex first, PageCount pages) {
    mark(first, pages.v, Contents::recent);
    release(first, pages.v);
  }
  void clear_block(PageIndex first) { block_word(first).store(0); }
  // Of two callers who change what a block is, one succeeds.
  [[nodiscard]] bool exchange_kind(PageIndex first, BlockKind from, BlockKind to) {
    std::uint32_t word = block_word(first).load();
    return BlockWord::kind(word) == from && block_word(first).compare_exchange_strong(
                                                word, BlockWord::make(to, BlockWord::pages(word)));
  }
  // Works out row and summary from the block words. The first `covered` pages belong to a block
  // that begins in an earlier chunk.
  void rebuild_chunk(ChunkIndex chunk, std::uint32_t covered);
  // A chunk without memory: no block, no free page.
  void clear_chunk(ChunkIndex chunk);

  // One pass of a second-chance clock over a chunk: pages that were free and dirty at the last
  // pass too (or with `all`, every free dirty page) are taken, passed to purge(first, pages) →
  // bool, and given back, clean when it returned true. Returns the pages purged.
  template <class Purge>
  std::uint32_t age_chunk(ChunkIndex chunk, bool all, Purge&& purge);

  // Calls visit(first, pages) for the runs of free pages that may hold something. A hint.
  template <class Visit>
  void for_each_dirty_run(Visit&& visit) const;

  struct Counts {
    std::uint64_t free_pages = 0;
    std::uint64_t free_dirty_pages = 0;
    std::uint64_t large_pages = 0;  // in blocks of large objects
    std::uint64_t large_blocks = 0;
    std::uint64_t cached_pages = 0;    // in large blocks that are kept at hand
    std::uint64_t internal_pages = 0;  // in blocks of our own
    std::uint64_t unusable_pages = 0;  // in chunks that are unmapped or taken
    std::uint32_t longest_run = 0;     // free pages in a row inside one chunk
  };
  Counts count() const;
  // The same from running totals, which cost nothing to read: pages in blocks, free dirty pages.
  std::uint32_t used_pages() const { return at_least_zero(totals_->used); }
  std::uint32_t dirty_pages() const { return at_least_zero(totals_->dirty); }

  // Null, or what is broken. Only while no other thread is in the arena.
  const char* check_invariants() const;

 private:
  struct Summary;

  ChunkRows& rows(ChunkIndex chunk) const {
    return *reinterpret_cast<ChunkRows*>(rows_ + chunk.v * stride_);
  }
  ChunkRows& rows(PageIndex page) const { return rows(chunk_of(page)); }
  std::atomic<std::uint32_t>& block_word(PageIndex page) const {
    return rows(page).block[page.v % kPagesPerChunk];
  }
  std::uint32_t chunk_count() const { return chunk_count_->load(std::memory_order_acquire); }

  Block make_block(PageIndex first, PageCount pages, BlockKind kind);
  template <class IsWanted>
  Block take_in_longest_run(PageCount pages, BlockKind kind, std::uint32_t least,
                            IsWanted&& is_wanted);
  bool is_free(ChunkIndex chunk) const { return free_pages_in(chunk) == kPagesPerChunk; }  // a hint
  PageIndex take_in_chunk(std::uint32_t pages, std::uint32_t alignment);
  PageIndex take_first_fit(std::uint32_t pages, std::uint32_t alignment);
  PageIndex take_dirty_in(ChunkIndex chunk, std::uint32_t pages, std::uint32_t alignment);
  PageIndex take_in(ChunkIndex chunk, std::uint32_t pages, std::uint32_t alignment);
  PageIndex take_over_chunks(std::uint32_t pages, std::uint64_t alignment, std::uint64_t origin);
  bool is_run_free(PageIndex first, std::uint32_t pages) const;
  bool claim(PageIndex first, std::uint32_t pages);
  void note_claimed(PageIndex first, std::uint32_t pages);
  void release(PageIndex first, std::uint32_t pages);
  static std::uint32_t at_least_zero(const std::atomic<std::int32_t>& total) {
    const std::int32_t n = total.load(std::memory_order_relaxed);  // a hint
    return n > 0 ? static_cast<std::uint32_t>(n) : 0;
  }
  void mark(PageIndex first, std::uint32_t pages, Contents contents);
  void recount(PageIndex first, std::uint32_t pages, bool released);
  void learn(ChunkIndex chunk, std::uint32_t seen, std::uint32_t pages, std::uint32_t alignment);
  template <class Visit>
  void for_each_candidate(std::uint32_t pages, std::uint32_t alignment, Visit&& visit);
  void learn_group(std::uint32_t group);
  void lift_group(ChunkIndex chunk);

  std::byte* rows_ = nullptr;                                // const
  Bytes stride_ = 0;                                         // const
  std::atomic<std::uint32_t>* summaries_ = nullptr;          // const
  const std::atomic<std::uint32_t>* chunk_count_ = nullptr;  // const
  PageTotals* totals_ = nullptr;                             // const
  std::atomic<std::uint32_t>* groups_ = nullptr;             // const; see for_each_candidate
  std::uint32_t group_count_ = 0;                            // const
};

// Calls visit(first bit, bits) for the runs of set bits in a row.
template <class Visit>
void for_each_run(const std::uint64_t (&row)[kRowWords], Visit&& visit) {
  const auto is_set = [&](std::uint32_t i) { return (row[i / 64] >> i % 64 & 1) != 0; };
  for (std::uint32_t i = 0; i < kPagesPerChunk;) {
    if (row[i / 64] == 0) {
      i = (i / 64 + 1) * 64;
      continue;
    }
    const std::uint32_t first = i;
    while (i < kPagesPerChunk && is_set(i)) i++;
    if (i != first) {
      visit(first, i - first);
    } else {
      i++;
    }
  }
}

template <class Visit>
void Buddy::for_each_dirty_run(Visit&& visit) const {
  const std::uint32_t chunks = chunk_count();
  for (std::uint32_t c = 0; c < chunks; c++) {
    const ChunkRows& row = rows(ChunkIndex{c});
    std::uint64_t idle[kRowWords];
    for (std::uint32_t w = 0; w < kRowWords; w++) {
      idle[w] = row.free[w].load(std::memory_order_relaxed) &
                row.dirty[w].load(std::memory_order_relaxed);  // a hint
    }
    for_each_run(idle, [&](std::uint32_t first, std::uint32_t count) {
      visit(PageIndex{first_page(ChunkIndex{c}).v + first}, PageCount{count});
    });
  }
}

template <class Purge>
std::uint32_t Buddy::age_chunk(ChunkIndex chunk, bool all, Purge&& purge) {
  ChunkRows& row = rows(chunk);
  std::uint64_t due[kRowWords];
  for (std::uint32_t w = 0; w < kRowWords; w++) {
    const std::uint64_t idle = row.free[w].load(std::memory_order_relaxed) &
                               row.dirty[w].load(std::memory_order_relaxed);  // a hint
    due[w] = all ? idle : idle & row.aged[w].load(std::memory_order_relaxed);
    // What others mark meanwhile waits for another pass.
    row.aged[w].store(idle & ~due[w], std::memory_order_relaxed);
  }

  std::uint32_t purged = 0;
  for_each_run(due, [&](std::uint32_t position, std::uint32_t pages) {
    const PageIndex first{first_page(chunk).v + position};
    if (!claim(first, pages)) return;  // somebody took a page of it: it is in use again
    if (purge(first, PageCount{pages})) {
      mark(first, pages, Contents::zero);
      purged += pages;
    }
    release(first, pages);
  });
  return purged;
}

}  // namespace ashlar
