// SPDX-License-Identifier: MIT
// L3 · pages: the buddy of a shared arena, one chunk at a time in the hands of one lane.
//
// What:    takes and gives blocks of pages, adds chunks, gives empty ones back to the system.
// How:     whoever changes a chunk's row or block words holds the chunk for that moment: its lane's
//          number is in the chunk's word. Nobody waits for a chunk: who finds it held goes to
//          another, or adds one. A block that is freed while its chunk is held is marked `cached`,
//          and the chunk as one that has such blocks; whoever lets go of it gives them back.
// Death:   block words are the truth. A block exists from the one store of its word to the one
//          that clears it; rows and summaries are worked out from them. So a chunk whose holder
//          died needs no log: repair() rebuilds its row, and may itself be cut short and repeated.
// Order:   a chunk gets memory, then a row, then `backed`. It loses them the other way round.
// Threads: any, each for a lane that is its own.
// Trust:   a block's length is checked before it is used; loops are bounded by the arena's size.
#pragma once

#include "segment.h"

namespace ashlar::shm {

class Pages {
 public:
  void attach(const Segment& segment);

  // Chunks that have metadata, as this process knows it.
  std::uint32_t chunks() const { return chunks_.load(std::memory_order_relaxed); }  // only grows
  Bytes data_bytes() const { return data_bytes_.load(std::memory_order_relaxed); }
  void refresh();

  // Takes pages for a block; kNone: there is no room. The chunks they lie in stay held, until
  // commit() says what the block is. `alignment` is at most a chunk.
  [[nodiscard]] PageIndex claim(std::uint32_t lane, PageCount pages, PageCount alignment);
  void commit(std::uint32_t lane, PageIndex first, PageCount pages, BlockKind kind);

  // Gives back a slab's block: after begin_give() it is none any more, and after end_give() the
  // pages are free. False: the chunk is held, try again later.
  [[nodiscard]] bool begin_give(std::uint32_t lane, PageIndex first, PageCount pages);
  // `keeps_chunk`: leaves it to the caller to give the chunk back, if that is all free now.
  void end_give(std::uint32_t lane, PageIndex first, PageCount pages, bool keeps_chunk = false);
  // Gives back a large block. False: there is none. If the caller dies on the way, finish_giving()
  // sees to it.
  [[nodiscard]] bool give_large(std::uint32_t lane, PageIndex first);
  void finish_giving(std::uint32_t lane);
  // Changes the length of a large block where it is. False: not possible.
  [[nodiscard]] bool resize(std::uint32_t lane, PageIndex first, PageCount pages);

  // Gives back what was freed in chunks that were held. True: there was something.
  bool sweep(std::uint32_t lane);
  // Gives a chunk back that is all free, if another one is, without its memory. False: it stays.
  [[nodiscard]] bool leave_chunk(ChunkIndex chunk, std::uint32_t lane);
  // Gives back a piece of the memory of such a chunk. False: it is in use again, or held.
  static constexpr std::uint32_t kPieces = 16;
  [[nodiscard]] bool drop_piece(ChunkIndex chunk, std::uint32_t piece, std::uint32_t lane);
  // Adds room for such a block. False: the maximum is reached, or there is no memory.
  [[nodiscard]] bool grow(std::uint32_t lane, PageCount pages);
  // Makes sound and lets go of every chunk that the lane holds, whose owner is gone.
  void repair(std::uint32_t lane);

  // The length of the block that starts there, 0 if there is none of that kind or it is not sane.
  PageCount pages_of(PageIndex first, BlockKind kind) const;
  const Buddy& buddy() const { return buddy_; }
  ChunkState state_of(ChunkIndex chunk) const { return word(chunk).load(); }
  SharedChunk& meta(ChunkIndex chunk) const { return meta_[chunk.v]; }
  std::atomic<std::uint16_t>& taken_by(PageIndex first) const {
    return meta(chunk_of(first)).taken_by[first.v % kPagesPerChunk];
  }
  // How many of the chunk's first pages belong to a block that begins in an earlier one. Only
  // while the chunk cannot change.
  std::uint32_t covered(ChunkIndex chunk) const;

 private:
  // Chunks of the arena; chunks() are those that this process knows of.
  std::uint32_t all_chunks() const;
  std::atomic<std::uint32_t>& freeing(std::uint32_t lane) const {
    return (&segment_->at<Lane>(Geometry::kLaneTable))[lane].freeing;
  }
  std::atomic<ChunkState>& word(ChunkIndex chunk) const { return words_[chunk.v].state; }
  bool hold(ChunkIndex chunk, std::uint32_t lane);
  void let_go(ChunkIndex chunk, std::uint32_t lane, bool keeps_chunk = false);
  void set_backed(ChunkIndex chunk, bool backed);
  PageIndex claim_over_chunks(std::uint32_t lane, PageCount pages);
  bool claim_from(ChunkIndex first, std::uint32_t lane, PageCount pages);
  void mark_freed(ChunkIndex chunk);
  bool give_freed(ChunkIndex chunk, std::uint32_t lane);
  bool give_freed_block(PageIndex first, std::uint32_t lane);
  bool back_chunk(ChunkIndex chunk);
  bool back_metadata(std::uint32_t from, std::uint32_t to);
  bool leave_if_spare(ChunkIndex chunk);
  void drop_if_spare(ChunkIndex chunk);

  const Segment* segment_ = nullptr;  // const since attach, like the next three
  ChunkWord* words_ = nullptr;
  SharedChunk* meta_ = nullptr;
  Buddy buddy_;
  PageTotals totals_{};  // advice for a heap's purger; of what this process did
  // atomic: this process's threads; at most the maximum
  std::atomic<std::uint32_t> chunks_ = 0;
  std::atomic<Bytes> data_bytes_ = 0;
};

}  // namespace ashlar::shm
