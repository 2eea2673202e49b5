// SPDX-License-Identifier: MIT
// L3 · layout: how a shared arena lies in its segment.
//
//   header │ state │ processes │ lanes │ roots │ chunk words │ table │ summaries │ chunks' metadata
//     1 page   1 page  128 B each  64 B    8 B     8 B a chunk   256 B   4 B         84 KiB
//   │ data │ handles
//     2 MiB  512 KiB a chunk, as they are used
//
// What:    every position is an offset from the segment's first byte, every link an index; so it
//          may be mapped anywhere. 0 is the null offset: the header is no block.
// How:     zones are sized for the segment's maximum. Up to the roots they have memory from the
//          start; cursors get it when their lane is leased, the rest chunk by chunk, and handles
//          as they are used. Zero is a valid first state of all of it except the header.
// Truth:   block words, unit entries, bitmaps, and the states of processes, lanes and chunks.
//          Everything else is a hint, can be worked out again, and is not believed unchecked.
// Trust:   the header does not change once the segment has a name. Who attaches checks it, keeps
//          a copy of what it needs, and never reads it again.
#pragma once

#include <atomic>

#include "arena.h"
#include "handle_layout.h"

namespace ashlar::shm {

using Offset = std::uint64_t;

inline constexpr std::uint32_t kProcesses = 512;
inline constexpr std::uint32_t kLanes = 512;
inline constexpr std::uint32_t kRoots = 1024;
inline constexpr Offset kPlaces = Offset{1} << 62;      // locks on them: far behind any byte
inline constexpr std::uint32_t kMostChunks = 1u << 22;  // 8 TiB

// Processors take a load for dependent on an earlier store at the same offset of another page, and
// lose up to 30 cycles. What the hit paths write has many offsets, but first of all 128 i (bitmaps,
// cursors) and 1024 i + 192 or more (published cursors). So what they read begins here, each `i`
// for one thing.
constexpr Bytes offset_for_reading(std::uint32_t i) { return i * kKiB + 16; }

// --- the header -----------------------------------------------------------------------------

struct Header {
  static constexpr std::uint64_t kMagic = 0x31'6d'68'73'2e'68'73'61;  // "ash.shm1", backwards
  static constexpr std::uint32_t kVersion = 1;
  static constexpr std::uint32_t kFixedSize = 1;  // flags

  std::uint64_t magic;
  std::uint32_t version;
  std::uint32_t layout_hash;  // of everything that two builds must agree on
  std::uint32_t max_chunks;
  std::uint32_t flags;
  std::uint64_t segment_bytes;
  std::uint64_t id[2];     // random, so that two arenas can be told apart
  std::uint64_t checksum;  // of all bytes before it
};

// --- what changes -----------------------------------------------------------------------------

struct alignas(kPageBytes) State {
  std::atomic<std::uint32_t> chunks;  // atomic: who grows it → all; these have metadata
  // atomic: who takes a place or lane → all; there was never one at or behind these
  std::atomic<std::uint32_t> places_end;
  std::atomic<std::uint32_t> lanes_end;
  std::atomic<std::uint64_t> quota;  // atomic: any → any; bytes a process may hold, 0: no limit
  std::atomic<std::uint64_t> recoveries;  // atomic: any; processes whose lanes were recovered
  std::atomic<std::uint64_t> bad_frees;   // atomic: any; frees that were refused

  // The table of handles: entries that have memory, and that were ever used.
  std::atomic<std::uint32_t> handles_backed;  // atomic: who adds some → all
  std::atomic<std::uint32_t> handles_end;     // atomic: who takes one → all
  // By class: some slab of objects with handles may have room. A hint.
  std::atomic<std::uint64_t> handle_room;  // atomic: any → any
  std::atomic<std::uint32_t> compactor;    // atomic: any; lane + 1, 0: nobody compacts
  // The entry with which its pass goes on, plus one; 0: no pass is under way.
  std::atomic<std::uint32_t> pass_at;  // compactor → next compactor
  std::atomic<std::uint32_t> passes;   // compactor → all; how often victims were chosen
  // A chunk whose memory passes give back in pieces, plus one; 0: none. And pieces that are gone.
  std::atomic<std::uint32_t> leaving_chunk;   // compactor → next compactor
  std::atomic<std::uint32_t> leaving_pieces;  // likewise
};

inline void raise_to(std::atomic<std::uint32_t>& bound, std::uint32_t value) {
  std::uint32_t known = bound.load();
  while (known < value && !bound.compare_exchange_weak(known, value)) {
  }
}

// States are aligned as the word that they are exchanged as, also outside of an atomic: clang calls
// a library otherwise.

// Who holds a place in the table of processes. The kernel's lock on the place, not this word,
// tells whether that process lives (see lease.h).
struct alignas(std::uint64_t) ProcessState {
  enum Kind : std::uint8_t { kFree, kAttached, kInRecovery };

  std::uint32_t generation = 0;  // one more for each holder
  std::uint16_t recoverer = 0;   // the place of the process that recovers it
  Kind kind = kFree;
  std::uint8_t scoped = 0;  // its blocks die with it
};

struct alignas(2 * kCacheLineBytes) Process {
  std::atomic<ProcessState> state;  // atomic: holder and recoverer, by exchange
  // For people to read; written once by the holder.
  std::atomic<std::uint32_t> pid;
  std::atomic<std::uint64_t> start_time;  // in clock ticks since boot, as in /proc/PID/stat
  std::atomic<char> name[16];
};

struct alignas(std::uint64_t) LaneState {
  // `idle`: leased by a process, but by none of its threads.
  enum Kind : std::uint8_t { kVacant, kLeased, kIdle };

  std::uint32_t generation = 0;  // one more for each lease
  std::uint16_t process = 0;     // the place of the leaseholder's process
  Kind kind = kVacant;
  std::uint8_t plain = 0;  // may hold blocks that outlive their process; not for a scoped one
};
static_assert(std::atomic<ProcessState>::is_always_lock_free);
static_assert(std::atomic<LaneState>::is_always_lock_free);

struct alignas(kCacheLineBytes) Lane {
  std::atomic<LaneState> state;  // atomic: who leases, releases or recovers it, by exchange
  // A block on its way into `published_at`: until the store there it is nobody's.
  // atomic: leaseholder, who changes the slot → recoverer; 0: none. See exchange().
  std::atomic<Offset> publishing;
  static constexpr Offset kNeverPublished = 1;  // a recoverer's mark on it
  std::atomic<Offset> published_at;             // leaseholder → recoverer
  // The first page of a large block that is being given back, plus one; 0: none.
  std::atomic<std::uint32_t> freeing;     // leaseholder → recoverer
  std::atomic<std::uint64_t> held_pages;  // atomic: any; a hint, for quotas
  std::atomic<std::uint32_t> news;  // atomic: any → leaseholder; others freed slots of its slabs
  // 0: the lane has no LaneHandles yet; else none of their pins was ever used at or behind this.
  std::atomic<std::uint32_t> pins_end;  // leaseholder → all

  // A death may have left the count too low.
  void release(std::uint64_t pages) {
    std::uint64_t held = held_pages.load();
    while (!held_pages.compare_exchange_weak(held, held > pages ? held - pages : 0)) {
    }
  }
};

// What a lane is taking slots from: of each class one word of one slab. Its free slots are `avail`
// here, and not at rest there, until the word is used up or the lane is given up.
struct alignas(1024) LaneCursors {
  struct Shared {
    std::atomic<std::uint64_t> avail;  // leaseholder → recoverer; one store takes a slot
    std::atomic<std::uint32_t> unit;   // leaseholder → recoverer; the slab's first unit
    std::atomic<std::uint32_t> word;   // leaseholder → recoverer
  };
  std::byte unused[192];  // see offset_for_reading()
  Shared of_class[kClassCount];
};
static_assert(sizeof(LaneCursors) == 1024);

// Who may change a chunk's row and block words just now.
struct alignas(std::uint64_t) ChunkState {
  std::uint16_t holder = 0;    // lane + 1; 0: nobody
  std::uint8_t backed = 0;     // it has memory
  std::uint8_t has_freed = 0;  // a block in it is `cached`: freed, and not yet given back
  std::uint32_t version = 0;   // one more for each holder
};
static_assert(std::atomic<ChunkState>::is_always_lock_free);

struct ChunkWord {
  std::atomic<ChunkState> state;  // atomic: any, by exchange
};

// Beside the core's metadata of a chunk: for the first page of a large block, or of a slab of objects
// with handles, the lane it was taken by, plus one; and which units had slots freed by others.
struct SharedChunk {
  ChunkMeta core;
  std::atomic<std::uint16_t> taken_by[kPagesPerChunk];
  std::atomic<std::uint32_t> freed_units;  // atomic: who frees → owners; a hint
  std::byte unused[kPageBytes - kPagesPerChunk * 2 - 4];
};
static_assert(sizeof(SharedChunk) == sizeof(ChunkMeta) + kPageBytes);

// A named offset, in a block of the arena; never moved or freed once it is entered.
struct Root {
  static constexpr Bytes kMostKeyBytes = 255;
  std::atomic<Offset> value;
  char key[1];  // to its null byte
};

// --- geometry ---------------------------------------------------------------------------------

struct Geometry {
  static constexpr Bytes kState = kPageBytes;
  static constexpr Bytes kProcessTable = kState + sizeof(State);
  static constexpr Bytes kLaneTable = kProcessTable + kProcesses * sizeof(Process);
  static constexpr Bytes kRootTable = kLaneTable + kLanes * sizeof(Lane);
  // Behind this, memory is added as it is needed: by lane and by chunk.
  static constexpr Bytes kLaneCursors = kRootTable + kRoots * sizeof(std::atomic<Offset>);
  static constexpr Bytes kLaneHandles = kLaneCursors + kLanes * sizeof(LaneCursors);
  static constexpr Bytes kChunkWords = kLaneHandles + kLanes * sizeof(LaneHandles);
  static constexpr Bytes kTableBytesPerChunk = kUnitsPerChunk * sizeof(std::uint64_t);
  static constexpr Bytes kSummaryBytesPerChunk = sizeof(std::uint32_t);
  static constexpr std::uint32_t kHandlesPerChunk = 64 * 1024;  // enough for objects of 32 bytes
  static constexpr std::uint32_t kMostHandles = kNone - 1;

  Bytes table = 0;
  Bytes summaries = 0;
  Bytes chunk_metadata = 0;
  Bytes data = 0;
  Bytes handles = 0;
  Bytes end = 0;
  std::uint32_t handle_count = 0;

  constexpr Geometry() = default;
  // In somebody else's file, where room is dear, there are no handles.
  explicit constexpr Geometry(std::uint32_t chunks, bool with_handles = true)
      : table(align_up(kChunkWords + chunks * sizeof(ChunkWord), kPageBytes) +
              offset_for_reading(3)),
        summaries(align_up(table + chunks * kTableBytesPerChunk, kPageBytes)),
        chunk_metadata(align_up(summaries + chunks * kSummaryBytesPerChunk, kPageBytes)),
        data(align_up(chunk_metadata + chunks * sizeof(SharedChunk), kChunkBytes)),
        handles(data + Bytes{chunks} * kChunkBytes),
        end(handles +
            (with_handles ? Bytes{chunks} * kHandlesPerChunk * sizeof(HandleWord) : Bytes{0})),
        handle_count(!with_handles                              ? 0
                     : chunks < kMostHandles / kHandlesPerChunk ? chunks * kHandlesPerChunk
                                                                : kMostHandles) {}
};
static_assert(Geometry::kLaneCursors % kPageBytes == 0);
static_assert(Geometry::kLaneHandles % kPageBytes == 0);

// FNV-1a (Fowler, Noll, Vo).
constexpr std::uint64_t hash_bytes(const unsigned char* bytes, Bytes count,
                                   std::uint64_t hash = 0xcbf2'9ce4'8422'2325) {
  for (Bytes i = 0; i < count; i++) hash = (hash ^ bytes[i]) * 0x100'0000'01b3;
  return hash;
}

// Two builds that differ in any of this must not share an arena.
consteval std::uint32_t layout_hash() {
  std::uint64_t hash = 0xcbf2'9ce4'8422'2325;
  const auto add = [&hash](std::uint64_t n) { hash = (hash ^ n) * 0x100'0000'01b3; };
  const Geometry g(1000);
  for (const Bytes n : {g.table,
                        g.summaries,
                        g.chunk_metadata,
                        g.data,
                        g.end,
                        Geometry::kProcessTable,
                        Geometry::kLaneTable,
                        Geometry::kRootTable,
                        Geometry::kLaneCursors,
                        Geometry::kLaneHandles,
                        Geometry::kChunkWords,
                        Bytes{LaneHandles::kPins},
                        Bytes{HandleEntry::kPositionBits},
                        sizeof(Process),
                        sizeof(Lane),
                        offsetof(LaneCursors, of_class),
                        sizeof(SharedChunk),
                        sizeof(SlabDescriptor),
                        offsetof(ChunkMeta, short_free),
                        offsetof(ChunkMeta, long_free),
                        offsetof(ChunkMeta, rows),
                        offsetof(ChunkRows, block)}) {
    add(n);
  }
  for (const SizeClass& c : kSizeClasses) {
    add(c.slot_bytes);
    add(c.slab_bytes);
  }
  return static_cast<std::uint32_t>(hash ^ hash >> 32);
}

}  // namespace ashlar::shm
