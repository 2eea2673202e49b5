// SPDX-License-Identifier: MIT
// snapshot: what one arena looked like at one time, free of addresses to follow.
//
// What:    plain values: a byte for each page, a record for each slab, block and lane, and the
//          bitmaps of the slabs. Capturing (capture.h) fills it and checks it; metrics (metrics.h)
//          are functions of it. Nothing in it refers to the allocator's own structures.
// Bounds:  every index in a snapshot is valid: capture() drops what is not and counts it in
//          `dropped`. Tests may build one by hand; check(snapshot) says what is wrong with it.
// Threads: a value; share it const.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace ashlar::frag {

inline constexpr std::uint64_t kPageBytes = 4096;
inline constexpr std::uint32_t kPagesPerUnit = 16;
inline constexpr std::uint32_t kPagesPerChunk = 512;

// What a page is for.
enum class PageUse : std::uint8_t {
  free,
  slab,
  large,     // of a large object
  cached,    // of a freed large block that a thread keeps at hand
  internal,  // the allocator's own data
  unusable,  // of a chunk without memory, or of somebody else's
};

struct Page {
  PageUse use : 3;
  bool resident : 1;  // in memory. In a core file: not all zero
  bool swapped : 1;
  bool huge : 1;   // part of a huge page
  bool dirty : 1;  // free, and used since it was last zero
  bool aged : 1;   // dirty since the purger's last pass or longer
};

// A size class. The last one is no class: it is the shape of mosaics, whose slots are grains; their
// objects take one grain or more.
struct ClassShape {
  std::uint32_t slot_bytes = 0;
  std::uint32_t slab_bytes = 0;
  std::uint32_t capacity = 0;  // slots in a slab

  std::uint32_t words() const { return (capacity + 63) / 64; }
  std::uint32_t pages() const { return static_cast<std::uint32_t>(slab_bytes / kPageBytes); }
};

struct Slab {
  std::uint32_t first_page = 0;
  std::uint16_t size_class = 0;
  std::uint16_t lane = 0;     // index into Snapshot::lanes, or kNoLane
  std::uint32_t live = 0;     // slots that the program holds
  std::uint32_t cached = 0;   // slots in magazines
  std::uint32_t pending = 0;  // slots that other threads freed and the owner has not taken over
  std::size_t words = 0;      // where its bits begin in Snapshot::live_bits and taken_bits
  std::size_t starts = 0;     // of a mosaic: where its bits begin in Snapshot::start_bits

  static constexpr std::uint16_t kNoLane = 0xffff;
  std::uint32_t taken() const { return live + cached + pending; }  // not at rest
};

// A block of pages that is not a slab.
struct Block {
  std::uint32_t first_page = 0;
  std::uint32_t pages = 0;
  PageUse use = PageUse::large;
  std::uint16_t lane = Slab::kNoLane;  // of a program heap's
};

// Who owns slabs: a thread, at most one at a time, or a heap that the program made.
struct Lane {
  std::uint64_t tag = 0;              // what its unit table entries carry
  std::optional<std::uint64_t> heap;  // the number of the heap that it is; 0: it is gone
  bool leased = false;                // a thread has it
  std::uint32_t slabs = 0;            // that it owns
  std::uint64_t cached = 0;           // bytes of slots in its magazines
  std::uint64_t pending = 0;          // bytes of its slots that others freed, not taken over
};

// Of an arena in shared memory: a process that is attached, or died and was not recovered yet.
struct Holder {
  std::int64_t pid = 0;  // as it sees itself
  std::string name;
  bool alive = false;
  bool scoped = false;  // its blocks die with it
  std::uint32_t lanes = 0;
  std::uint64_t held = 0;  // bytes of slabs and large blocks
};

// Of the whole process, as the kernel counts. Missing for core files.
struct ProcessMemory {
  std::uint64_t rss = 0;
  std::uint64_t pss = 0;
  std::uint64_t swap = 0;
  std::uint64_t anonymous_huge = 0;
};

// What a sample tells of a sum over all objects, and the standard deviation of that.
struct Estimate {
  double value = 0;
  double deviation = 0;
};

struct Snapshot {
  // Where it comes from.
  std::string source;   // "process", "core" or "shm"
  std::string program;  // name of the program, or of the arena
  std::int64_t pid = 0;
  std::string release;         // of the allocator
  std::int64_t unix_time = 0;  // when it was taken; 0: unknown

  // The arena.
  std::vector<ClassShape> classes;
  std::uint64_t data_address = 0;
  std::vector<Page> pages;    // of all chunks, in order
  std::vector<Slab> slabs;    // ascending
  std::vector<Block> blocks;  // ascending
  std::vector<Lane> lanes;
  // A bit per slot, `words()` words a slab. live: held by the program. taken: live, in a magazine
  // or pending, so that its bytes may change.
  std::vector<std::uint64_t> live_bits;
  std::vector<std::uint64_t> taken_bits;
  std::vector<std::uint64_t> start_bits;  // of mosaics only: an object begins at this grain

  // Beside the pages above: header, tables, bitmaps.
  std::uint64_t metadata_resident = 0;
  std::uint64_t metadata_swapped = 0;

  std::int64_t purge_ms = 0;
  std::int64_t magazine_kib = 0;
  std::int64_t sample_kib = 0;
  // By samples, where there are some: bytes of slots and pages that nobody asked for.
  std::optional<Estimate> rounding;
  bool huge_known = false;                  // Page::huge says something
  std::optional<std::uint64_t> huge_bytes;  // in all chunks, where no page says it
  std::optional<ProcessMemory> process;
  std::optional<std::vector<Holder>> holders;  // of an arena in shared memory

  // How sure we are.
  std::uint32_t slabs_reread = 0;  // they changed while being read, and were read again
  std::uint32_t dropped = 0;       // records that made no sense

  std::uint32_t chunks() const { return static_cast<std::uint32_t>(pages.size() / kPagesPerChunk); }
  const ClassShape& shape(const Slab& slab) const { return classes[slab.size_class]; }
  bool is_shared() const { return holders.has_value(); }
  bool is_mosaic(const Slab& slab) const { return slab.size_class + 1u == classes.size(); }
  // Slots that an object takes which begins at that one: more than one in mosaics only.
  std::uint32_t slots_of_object(const Slab& slab, std::uint32_t first) const;
};

// Null, or the rule that a snapshot breaks.
const char* check(const Snapshot& snapshot);

}  // namespace ashlar::frag
