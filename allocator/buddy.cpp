// SPDX-License-Identifier: MIT
#include "buddy_parts.h"

namespace ashlar {

bool Buddy::give(PageIndex first, BlockKind kind, Contents contents) {
  // pairs with: take. Of two racing givers one gets the block.
  std::uint32_t word = block_word(first).load(std::memory_order_acquire);
  if (BlockWord::kind(word) != kind || !block_word(first).compare_exchange_strong(word, 0))
    return false;
  mark(first, BlockWord::pages(word), contents);
  release(first, BlockWord::pages(word));
  return true;
}

bool Buddy::resize(PageIndex first, PageCount pages, bool& zero) {
  std::atomic<std::uint32_t>& head = block_word(first);
  const std::uint32_t word = head.load(std::memory_order_relaxed);  // the caller's own
  const std::uint32_t old_pages = BlockWord::pages(word);
  const std::uint32_t new_word = BlockWord::make(BlockWord::kind(word), pages.v);
  zero = true;
  if (pages.v > old_pages) {
    const PageIndex gained{first.v + old_pages};
    const std::uint32_t gain = pages.v - old_pages;
    if (std::uint64_t{gained.v} + gain > std::uint64_t{chunk_count()} * kPagesPerChunk)
      return false;
    if (!claim(gained, gain)) return false;
    zero = count_dirty(gained, gain) == 0;
    head.store(new_word, std::memory_order_release);  // pairs with: kind_at
  } else if (pages.v < old_pages) {
    head.store(new_word, std::memory_order_release);  // pairs with: kind_at
    const PageIndex lost{first.v + pages.v};
    mark(lost, old_pages - pages.v, Contents::recent);
    release(lost, old_pages - pages.v);
  }
  return true;
}

// All the pages or none of them.
bool Buddy::claim(PageIndex first, std::uint32_t pages) {
  std::uint32_t done = 0;
  while (done < pages) {
    const std::uint32_t page = first.v + done;
    const std::uint32_t bit = page % 64;
    const std::uint32_t count = pages - done < 64 - bit ? pages - done : 64 - bit;
    const std::uint64_t mask = bit_range(bit, count);
    std::atomic<std::uint64_t>& word = rows(PageIndex{page}).free[page % kPagesPerChunk / 64];
    std::uint64_t old = word.load(std::memory_order_relaxed);  // checked by the exchange
    do {
      if ((old & mask) != mask) {
        note_claimed(first, done);
        release(first, done);
        return false;
      }
      // pairs with: release
    } while (!word.compare_exchange_weak(old, old & ~mask, std::memory_order_acq_rel));
    done += count;
  }
  note_claimed(first, pages);
  return true;
}

void Buddy::note_claimed(PageIndex first, std::uint32_t pages) {
  recount(first, pages, false);
  totals_->used.fetch_add(static_cast<std::int32_t>(pages), std::memory_order_relaxed);  // advice
  totals_->dirty.fetch_sub(static_cast<std::int32_t>(count_dirty(first, pages)),
                           std::memory_order_relaxed);  // advice
}

void Buddy::release(PageIndex first, std::uint32_t pages) {
  // Before somebody else may claim them.
  totals_->used.fetch_sub(static_cast<std::int32_t>(pages), std::memory_order_relaxed);  // advice
  totals_->dirty.fetch_add(static_cast<std::int32_t>(count_dirty(first, pages)),
                           std::memory_order_relaxed);  // advice
  for_each_chunk(first, pages, [&](PageIndex at, std::uint32_t position, std::uint32_t count) {
    ChunkRows& row = rows(at);
    for_each_word(position, count, [&](std::uint32_t w, std::uint64_t mask) {
      [[maybe_unused]] const std::uint64_t old =
          row.free[w].fetch_or(mask, std::memory_order_acq_rel);  // pairs with: claim
      ASHLAR_ASSERT((old & mask) == 0);
    });
  });
  recount(first, pages, true);
}

std::uint32_t Buddy::count_dirty(PageIndex first, std::uint32_t pages) const {
  std::uint32_t dirty = 0;
  for_each_chunk(first, pages, [&](PageIndex at, std::uint32_t position, std::uint32_t count) {
    const ChunkRows& row = rows(at);
    for_each_word(position, count, [&](std::uint32_t w, std::uint64_t mask) {
      const std::uint64_t word =
          row.dirty[w].load(std::memory_order_relaxed);  // ours since claim()
      dirty += static_cast<std::uint32_t>(std::popcount(word & mask));
    });
  });
  return dirty;
}

void Buddy::mark(PageIndex first, std::uint32_t pages, Contents contents) {
  const auto set = [](std::atomic<std::uint64_t>& word, std::uint64_t mask, bool value) {
    // relaxed, both: release() publishes it, which pairs with claim()
    if (value) {
      word.fetch_or(mask, std::memory_order_relaxed);
    } else {
      word.fetch_and(~mask, std::memory_order_relaxed);
    }
  };
  for_each_chunk(first, pages, [&](PageIndex at, std::uint32_t position, std::uint32_t count) {
    ChunkRows& row = rows(at);
    for_each_word(position, count, [&](std::uint32_t w, std::uint64_t mask) {
      set(row.dirty[w], mask, contents != Contents::zero);
      set(row.aged[w], mask, contents == Contents::idle);
    });
  });
}

void Buddy::recount(PageIndex first, std::uint32_t pages, bool released) {
  for_each_chunk(first, pages, [&](PageIndex at, std::uint32_t, std::uint32_t count) {
    std::atomic<std::uint32_t>& word = summaries_[chunk_of(at).v];
    std::uint32_t old = word.load(std::memory_order_relaxed);  // checked by the exchange
    Summary next;
    do {
      next = Summary::of(old);
      next.free = (released ? next.free + count : next.free - count) & 0x3ff;
      next.version++;
      if (released) {
        next.longest = kPagesPerChunk;
        next.has_unit = 1;
      }
      // pairs with: take_in. seq_cst, see lift_group.
    } while (!word.compare_exchange_weak(old, next.word()));
    if (released) lift_group(chunk_of(at));
  });
}

void Buddy::add_chunks(ChunkIndex first, std::uint32_t count) {
  for (std::uint32_t c = first.v; c < first.v + count; c++) {
    for (auto& word : rows(ChunkIndex{c}).free) word.store(~std::uint64_t{0});
    summaries_[c].store(Summary::all_free().word());
    lift_group(ChunkIndex{c});
  }
}

void Buddy::add_taken_chunk(ChunkIndex chunk) {
  block_word(first_page(chunk)).store(BlockWord::make(BlockKind::taken, kPagesPerChunk));
}

bool Buddy::retire_chunk(ChunkIndex chunk) {
  // A hint: claim() decides.
  if (Summary::of(summaries_[chunk.v].load(std::memory_order_relaxed)).free != kPagesPerChunk) {
    return false;
  }
  if (!claim(first_page(chunk), kPagesPerChunk)) return false;
  block_word(first_page(chunk)).store(BlockWord::make(BlockKind::unmapped, kPagesPerChunk));
  return true;
}

void Buddy::revive_chunks(ChunkIndex first, std::uint32_t count) {
  for (std::uint32_t c = first.v; c < first.v + count; c++) {
    const PageIndex page = first_page(ChunkIndex{c});
    for (auto& word : rows(page).dirty) word.store(0);
    for (auto& word : rows(page).aged) word.store(0);
    block_word(page).store(0);
    release(page, kPagesPerChunk);
  }
}

void Buddy::rebuild_chunk(ChunkIndex chunk, std::uint32_t covered) {
  ChunkRows& row = rows(chunk);
  std::uint64_t taken[kRowWords] = {};
  const auto cover = [&](std::uint32_t first, std::uint32_t pages) {
    const std::uint32_t room = kPagesPerChunk - first;
    for_each_word(first, pages < room ? pages : room,
                  [&](std::uint32_t w, std::uint64_t mask) { taken[w] |= mask; });
  };
  cover(0, covered);
  for (std::uint32_t i = 0; i < kPagesPerChunk; i++) {
    const std::uint32_t word = row.block[i].load(std::memory_order_relaxed);  // the caller's chunk
    if (BlockWord::kind(word) != BlockKind::none) cover(i, BlockWord::pages(word));
  }
  std::uint32_t free = 0;
  for (std::uint32_t w = 0; w < kRowWords; w++) {
    free += static_cast<std::uint32_t>(std::popcount(~taken[w]));
    row.free[w].store(~taken[w]);
    row.dirty[w].store(~std::uint64_t{0});
    row.aged[w].store(0);
  }
  summaries_[chunk.v].store(
      Summary{.free = free, .longest = kPagesPerChunk, .has_unit = 1, .version = 0}.word());
  lift_group(chunk);
}

void Buddy::clear_chunk(ChunkIndex chunk) {
  ChunkRows& row = rows(chunk);
  for (auto& word : row.free) word.store(0);
  for (auto& word : row.aged) word.store(0);
  for (auto& word : row.block) word.store(0);
  summaries_[chunk.v].store(0);
}

bool Buddy::is_free(PageIndex page) const {
  return (rows(page).free[page.v % kPagesPerChunk / 64].load() >> page.v % 64 & 1) != 0;
}

std::uint32_t Buddy::free_pages_in(ChunkIndex chunk) const {
  return Summary::of(summaries_[chunk.v].load(std::memory_order_relaxed)).free;  // a hint
}

Buddy::Counts Buddy::count() const {
  Counts counts;
  const std::uint32_t chunks = chunk_count();
  for (std::uint32_t c = 0; c < chunks; c++) {
    const ChunkRows& row = rows(ChunkIndex{c});
    RowCopy free(row.free);
    counts.free_pages += free.count();
    const std::uint32_t longest = free.longest_run();
    if (longest > counts.longest_run) counts.longest_run = longest;
    const RowCopy dirty(row.dirty);
    for (std::uint32_t w = 0; w < kRowWords; w++) free.word[w] &= dirty.word[w];
    counts.free_dirty_pages += free.count();
    for (const auto& block : row.block) {
      const std::uint32_t word = block.load(std::memory_order_relaxed);  // a count, not an order
      if (BlockWord::kind(word) == BlockKind::large) {
        counts.large_pages += BlockWord::pages(word);
        counts.large_blocks++;
      } else if (BlockWord::kind(word) == BlockKind::cached) {
        counts.cached_pages += BlockWord::pages(word);
      } else if (BlockWord::kind(word) == BlockKind::internal) {
        counts.internal_pages += BlockWord::pages(word);
      } else if (BlockWord::kind(word) >= BlockKind::unmapped) {
        counts.unusable_pages += BlockWord::pages(word);
      }
    }
  }
  return counts;
}

const char* Buddy::check_invariants() const {
  const std::uint32_t chunks = chunk_count();
  std::uint64_t block_end = 0;  // page behind the last block seen
  std::int64_t used = 0;
  std::int64_t dirty = 0;
  for (std::uint32_t c = 0; c < chunks; c++) {
    const ChunkRows& row = rows(ChunkIndex{c});
    const RowCopy free(row.free);
    for (std::uint32_t i = 0; i < kPagesPerChunk; i++) {
      const std::uint64_t page = std::uint64_t{c} * kPagesPerChunk + i;
      const bool is_free = (free.word[i / 64] >> (i % 64) & 1) != 0;
      const std::uint32_t word = row.block[i].load();
      if (word != 0) {
        if (page < block_end) return "buddy 1: two blocks overlap";
        if (BlockWord::pages(word) == 0) return "buddy 1: a block without pages";
        block_end = page + BlockWord::pages(word);
      }
      if (is_free && page < block_end) return "buddy 1: a page of a block is free";
      if (!is_free && page >= block_end) return "buddy 1: a page is neither free nor in a block";
    }
    const bool is_taken = kind_at(first_page(ChunkIndex{c})) == BlockKind::taken;
    used += is_taken ? 0 : kPagesPerChunk - free.count();
    for (std::uint32_t w = 0; w < kRowWords; w++) {
      dirty += std::popcount(free.word[w] & row.dirty[w].load());
    }
    const auto summary = Summary::of(summaries_[c].load());
    if (summary.free != free.count()) return "buddy 2: a summary's count is wrong";
    if (summary.longest < free.longest_run()) return "buddy 2: a summary's bound is too low";
    if (summary.has_unit == 0 && free.find_unit() != kNone) {
      return "buddy 2: a summary misses a free unit";
    }
    if (c / kChunksPerGroup < group_count_) {
      const auto group = Summary::of(groups_[c / kChunksPerGroup].load());
      if (group.free < free.count() || group.longest < free.longest_run() ||
          (group.has_unit == 0 && free.find_unit() != kNone)) {
        return "buddy 2: a group's bound is too low";
      }
    }
    for (std::uint32_t w = 0; w < kRowWords; w++) {
      if ((row.aged[w].load() & ~row.dirty[w].load()) != 0) {
        return "buddy 3: an aged page is clean";
      }
    }
  }
  if (totals_->used.load() != used || totals_->dirty.load() != dirty) {
    return "buddy 4: a total is wrong";
  }
  if (block_end > std::uint64_t{chunks} * kPagesPerChunk)
    return "buddy 1: a block leaves the arena";
  return nullptr;
}

}  // namespace ashlar
