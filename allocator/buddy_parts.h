// SPDX-License-Identifier: MIT
// L1 · buddy_parts: what buddy.cpp, which changes rows and block words, and buddy_search.cpp, which
// finds room, have in common. For nobody else.
#pragma once

#include "buddy.h"

namespace ashlar {

// What one word knows of a chunk. `free` is exact in a quiet arena; the bounds are never below
// the truth, except for a moment: whoever releases pages lifts them after setting the bits, and
// whoever found nothing lowers them only if the word is still the one he started from.
struct Buddy::Summary {
  std::uint32_t free : 10;     // free pages
  std::uint32_t longest : 10;  // no free run is longer
  std::uint32_t has_unit : 1;  // 0: no aligned unit is free
  std::uint32_t version : 11;  // counts changes, so that `learn` notices them

  static Summary of(std::uint32_t word) { return std::bit_cast<Summary>(word); }
  static Summary all_free() {
    return {.free = kPagesPerChunk, .longest = kPagesPerChunk, .has_unit = 1, .version = 0};
  }
  std::uint32_t word() const { return std::bit_cast<std::uint32_t>(*this); }

  bool may_fit(std::uint32_t pages, std::uint32_t alignment) const {
    const bool needs_unit = alignment >= kPagesPerUnit && pages >= kPagesPerUnit;
    return free >= pages && longest >= pages && (has_unit != 0 || !needs_unit);
  }
};

// Calls visit(first page of the piece, position in its chunk, pages) for each chunk of a run.
template <class Visit>
void for_each_chunk(PageIndex first, std::uint32_t pages, Visit&& visit) {
  while (pages != 0) {
    const std::uint32_t position = first.v % kPagesPerChunk;
    const std::uint32_t room = kPagesPerChunk - position;
    const std::uint32_t count = pages < room ? pages : room;
    visit(first, position, count);
    first.v += count;
    pages -= count;
  }
}

// A private copy of a row, to search in peace. What is found must still be claimed.
struct RowCopy {
  std::uint64_t word[kRowWords];

  explicit RowCopy(const std::atomic<std::uint64_t> (&row)[kRowWords]) {
    // A hint: claim() decides.
    for (std::uint32_t w = 0; w < kRowWords; w++) word[w] = row[w].load(std::memory_order_relaxed);
  }

  RowCopy& operator&=(const RowCopy& other) {
    for (std::uint32_t w = 0; w < kRowWords; w++) word[w] &= other.word[w];
    return *this;
  }

  // First position >= from whose bit is `value`, or kPagesPerChunk.
  std::uint32_t next(std::uint32_t from, bool value) const {
    for (std::uint32_t w = from / 64; w < kRowWords; w++, from = w * 64) {
      const std::uint64_t bits = (value ? word[w] : ~word[w]) & ~std::uint64_t{0} << from % 64;
      if (bits != 0) return w * 64 + lowest_bit(bits);
    }
    return kPagesPerChunk;
  }

  // The lowest aligned run, or kNone.
  std::uint32_t find(std::uint32_t pages, std::uint32_t alignment) const {
    if (pages == kPagesPerUnit && alignment == kPagesPerUnit) return find_unit();
    for (std::uint32_t at = 0;;) {
      at = static_cast<std::uint32_t>(align_up(next(at, true), alignment));
      if (at + pages > kPagesPerChunk) return kNone;
      const std::uint32_t end = next(at, false);
      if (end >= at + pages) return at;
      at = end;
    }
  }

  // Sixteen pages at a multiple of sixteen: the common case, four candidates a word at once.
  std::uint32_t find_unit() const {
    for (std::uint32_t w = 0; w < kRowWords; w++) {
      std::uint64_t runs = word[w];
      runs &= runs >> 8;
      runs &= runs >> 4;
      runs &= runs >> 2;
      runs &= runs >> 1;
      runs &= 0x0001'0001'0001'0001;
      if (runs != 0) return w * 64 + lowest_bit(runs);
    }
    return kNone;
  }

  // Free pages at the chunk's end.
  std::uint32_t tail() const {
    std::uint32_t w = kRowWords;
    while (w > 0 && word[w - 1] == ~std::uint64_t{0}) w--;
    const auto part = w == 0 ? 0 : static_cast<std::uint32_t>(std::countl_one(word[w - 1]));
    return (kRowWords - w) * 64 + part;
  }

  std::uint32_t longest_run() const {
    std::uint32_t longest = 0;
    for (std::uint32_t at = next(0, true); at < kPagesPerChunk;) {
      const std::uint32_t end = next(at, false);
      if (end - at > longest) longest = end - at;
      at = next(end, true);
    }
    return longest;
  }

  std::uint32_t count() const {
    std::uint32_t n = 0;
    for (std::uint64_t w : word) n += static_cast<std::uint32_t>(std::popcount(w));
    return n;
  }
};

}  // namespace ashlar
