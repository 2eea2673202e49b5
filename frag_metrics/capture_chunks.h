// SPDX-License-Identifier: MIT
// capture_chunks: chunks of an arena, private or shared, read into a snapshot.
//
// What:    the part of capturing that a heap and a shared arena have in common, as they have the
//          core's metadata in common: rows, block words, unit entries, bitmaps. Whoever captures
//          reads headers and lanes himself, and hands over the metadata of one chunk after another.
// How:     see capture.h for what is believed: nothing. A slab whose count and bitmap disagree
//          changed meanwhile and is read again; shared slabs keep no count.
// Order:   begin(), add() for each chunk ascending, finish(), then mark_cached().
// Threads: one at a time.
#pragma once

#include <unordered_map>
#include <vector>

#include "arena.h"
#include "snapshot.h"
#include "target.h"

namespace ashlar::frag {

class ChunkReader {
 public:
  ChunkReader(Target& target, Snapshot& snapshot, std::uint64_t most_bytes)
      : target_(target), snapshot_(snapshot), most_bytes_(most_bytes) {}

  // Makes room for so many chunks, whose pages begin at `data` and unit entries at `table`. False:
  // these cannot be read.
  [[nodiscard]] bool begin(std::uint64_t data, std::uint64_t table, std::uint32_t chunks);
  // `address`: where the target has that metadata, to read slabs again; 0: their counts say
  // nothing.
  void add(std::uint32_t chunk, const ChunkMeta& meta, std::uint64_t address);
  // Pages get the use of the block they lie in; slabs without a block go.
  void finish();

  // Index in Snapshot::lanes of the lane with that tag; a new one if there is none yet.
  std::uint16_t lane_of(std::uint64_t tag);
  // The slot at that address is none of the live ones, as the lane keeps it at hand. If it was read
  // as free or pending, it moved meanwhile.
  void mark_cached(std::uint16_t lane, std::uint64_t address);

  // What is in memory of the chunks' pages.
  void read_residency();

  // Counts bytes of the snapshot; Error when they are too many.
  void spend(std::uint64_t bytes);

 private:
  struct Bits;

  void add_block(std::uint32_t first, std::uint32_t pages, BlockKind kind);
  std::uint32_t add_unit(const ChunkMeta& meta, std::uint64_t address, UnitIndex unit);
  std::uint32_t add_mosaic(const ChunkMeta& meta, UnitIndex unit, std::uint64_t tag);
  void add_slab(UnitIndex unit, UnitEntry entry, const Bits& bits);
  void add_owner(UnitIndex unit, std::uint64_t tag);

  Target& target_;
  Snapshot& snapshot_;
  std::uint64_t most_bytes_;
  std::uint64_t spent_ = 0;
  std::vector<std::uint64_t> units_;
  std::unordered_map<std::uint64_t, std::size_t> lane_index_;
};

// Whether that is the tag of a heap that the program made. In shared arenas none is.
constexpr bool is_heap(std::uint64_t tag) { return (tag & kProgramHeapTag) != 0; }

// Adds what is in memory of so many bytes of metadata, whole pages, to the snapshot's.
void add_metadata(Target& target, std::uint64_t address, std::uint64_t bytes, Snapshot& snapshot);

// The allocator's size classes, and the shape of mosaics.
std::vector<ClassShape> class_shapes();

}  // namespace ashlar::frag
