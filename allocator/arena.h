// SPDX-License-Identifier: MIT
// L3 · arena: a region with its metadata; slots and pages out of one place.
//
// What:    takes slots of a size class for a lane, or pages for a large object, out of one
//          region, and takes them back. A heap has one arena; a shared segment will be one.
// How:     every link is an index, every position an offset from the region's first byte:
//
//            header | unit table | summaries | chunk metadata … | chunk 0 | chunk 1 | …
//                     8 B a unit   4 B a chunk  80 KiB a chunk    (data)
//
//          All of it is sized for the region's maximum and committed chunk by chunk. A chunk's
//          metadata is page-aligned and grouped so that only what is used gets touched.
//          The Arena object itself is one process's view of that and lives outside it.
// Lanes:   a lane owns slabs. For each class it keeps them in lists by how full they are, and
//          takes from the fullest first, so that sparse slabs drain and go back to the buddy.
// Invariants (check_invariants() tests these by number, besides those of buddy and slab):
//   1  a unit entry and the slab's descriptor agree on class and owner
//   2  a slab is in the list of its owner that its count demands, full ones in none, or set aside
//   3  links lead to slabs of the same owner and class and back
//   4  a mosaic is in the list of its owner
//   5  an entry for a large block stands where such a block starts
// Threads: functions with a LaneSlabs: its owner. The others: any.
// Position: independent; only the view holds addresses.
// Not here: magazines (thread_cache), which thread has which lane (heap).
#pragma once

#include <atomic>
#include <bit>

#include "buddy.h"
#include "lock.h"
#include "mosaic.h"
#include "os.h"
#include "owned.h"
#include "slab.h"
#include "unit_scores.h"
#include "unit_table.h"

namespace ashlar {

// A lane's slabs: the part of a lane that lives by positions alone. In the arena, zero at first.
struct alignas(kCacheLineBytes) LaneSlabs {
  static constexpr std::uint32_t kLists = 8;  // eighths of fullness
  static constexpr std::uint8_t kNoList = kLists;
  static constexpr std::uint8_t kMosaicList = kLists + 1;  // SlabDescriptor::list of a mosaic
  static constexpr std::uint8_t kAsideList = kLists + 2;   // to be emptied: nothing is taken here

  // Slabs that others freed into since the owner last looked, by class, mosaics last: the first
  // unit, linked by SlabDescriptor::next_pending. kNone: none.
  std::atomic<std::uint32_t> inbox[kClassCount + 1];  // atomic: freeing threads push → the owner

  void empty_inbox() {
    for (auto& first : inbox) first.store(kNone);
  }

  alignas(kCacheLineBytes) std::uint64_t tag;  // const: see UnitEntry
  PageIndex index;                             // const: the page this structure starts at
  Owned<std::uint32_t> first_unit;          // owner → reports: no slab or owned block before it
  Owned<std::uint32_t> end_unit;            // owner → reports: nor from here on
  Owned<std::uint32_t> purge_cursor;        // owner: the unit where purge_slabs() goes on
  Owned<Bytes> used_bytes;                  // owner → reports: slots handed out; advice
  Owned<Bytes> refilled_bytes;              // owner: holes that were taken from; it only grows
  Owned<Bytes> slab_bytes;                  // owner: in slabs and mosaics
  bool has_mosaics;                         // const: may re-cut its sparse slabs
  std::uint32_t first_mosaic;               // owner: unit of the first in their list
  std::uint32_t next_mosaic;                // owner: where the search for gaps goes on
  std::uint32_t slabs_made;                 // owner: the clock by which a class is cold
  std::uint32_t made_at_take[kClassCount];  // owner: what it was when the class took slots
  std::uint8_t nonempty[kClassCount];       // owner: bit l: list l has a slab
  std::uint32_t head[kClassCount][kLists];  // owner: first unit of the list, or kNone
  std::uint32_t aside[kClassCount];         // owner: first unit of the slabs set aside, or kNone
  std::uint32_t plan;                       // owner: by which they were
  std::atomic<bool> takes_moved;            // atomic: who plans → who plans; see Compactor
  bool is_idle;  // who froze the lane: what it gives back now was not used for a whole pass

  // Of pages that are given back.
  Contents contents() const { return is_idle ? Contents::idle : Contents::recent; }
};

struct ArenaHeader;
struct ChunkMeta;

// What an address is.
struct Place {
  enum class Kind : std::uint8_t { foreign, free, slot, large, internal };
  Kind kind = Kind::foreign;
  ClassIndex size_class{kClassCount};  // of a slot; kClassCount: pages
  std::byte* begin = nullptr;          // of the slot or block
  Bytes bytes = 0;                     // of the slot or block
};

class alignas(kCacheLineBytes) Arena {
 public:
  constexpr Arena() = default;

  // Makes an arena in the region, one chunk large. Memory must be zero where it is `ready`.
  [[nodiscard]] os::Commit create(const os::Region& region);
  // This process's view of an arena that exists at `region`.
  void attach(const os::Region& region);
  // The smallest region that holds an arena of `chunks` chunks.
  static Bytes region_bytes(std::uint32_t chunks);

  bool exists() const { return header_ != nullptr; }
  // After a create() that failed.
  void forget() {
    header_ = nullptr;
    metadata_chunks_ = 0;
  }

  // --- slots ------------------------------------------------------------------------------

  // Up to `want` free slots of a class, from the lane's fullest slabs, or a new slab when it has
  // none. Written from slots[0] upwards; the last one has the lowest address of the first slab.
  // Returns how many; 0 when the buddy has no room: grow() and come again.
  std::uint32_t take_slots(LaneSlabs& lane, ClassIndex c, void** slots, std::uint32_t want);
  // Gives back slots of one class that this lane's slabs hold. Aborts on a double free.
  void give_slots(LaneSlabs& lane, ClassIndex c, void* const* slots, std::uint32_t count);
  // Gives back slots of any class and owner, from any thread. Aborts on a double free.
  void give_remote(void* const* slots, std::uint32_t count);
  // Takes over what others freed into this lane's slabs. True if there was anything.
  bool drain_inbox(LaneSlabs& lane);
  // The same for a few slabs of a class, so that no call takes long. False: there are no more.
  bool drain_some(LaneSlabs& lane, ClassIndex c);

  // Whether one of the lane's slabs of that class has room, after looking at what others freed.
  bool has_room(LaneSlabs& lane, ClassIndex c) {
    while (lane.nonempty[c.v] == 0 && lane.aside[c.v] == kNone) {
      if (!drain_some(lane, c)) return false;
    }
    return true;
  }
  // The fullest slab with room of a class becomes another lane's. No thread may have `from`, nor
  // may it have slots of that class at hand. False: there is none.
  bool adopt_slab(LaneSlabs& from, LaneSlabs& to, ClassIndex c);

  // A new lane's slabs, none yet, at an address inside the arena; see LaneSlabs for `tag`.
  void init_lane(LaneSlabs& lane, std::uint64_t tag);
  // Takes over what others freed into this lane's slabs without a notification that reached us.
  void drain_slabs(LaneSlabs& lane);
  // Makes a lane consistent whose owner was interrupted at any instruction and is gone. What it
  // was about to take or give is lost; nothing is handed out twice. Other lanes may go on.
  void recover_lane(LaneSlabs& lane);

  // --- slabs that are to be emptied ---------------------------------------------------------

  // What is won by moving the object at p, which may be any address. See UnitScores.
  std::uint8_t score_of(const void* p) const { return scores_.at_offset(data_offset(p)); }
  UnitScores& scores() { return scores_; }
  UnitIndex unit_of_slab(const Slab& slab) const {
    return {static_cast<std::uint32_t>(data_offset(slab.base()) / kUnitBytes)};
  }
  // Slots in use of the slab that p points into.
  std::uint32_t used_slots_at(const void* p) const {
    const ClassIndex c = entry_of(p).size_class();
    return slab_at(slab_unit(p, size_class(c)), c).descriptor().used;
  }
  // Where the slab starts that the lane would take from next; null: none has room.
  const void* next_slab(const LaneSlabs& lane, ClassIndex c) const {
    const std::uint8_t lists = lane.nonempty[c.v];
    return lists == 0 ? nullptr
                      : unit_address(UnitIndex{lane.head[c.v][std::bit_width(lists) - 1]});
  }
  // One slot of the lane's fullest slab that is to stay; null: none has room.
  void* take_dense(LaneSlabs& lane, ClassIndex c);
  // The same, of a new slab when none has room; null: the buddy has none either.
  void* take_dense_or_new(LaneSlabs& lane, ClassIndex c);

  // --- mosaics ------------------------------------------------------------------------------

  // Gives one object in a mosaic back, from any thread.
  Give give_to_mosaic(void* object);
  Give give_to_mosaic(void* const* objects, std::uint32_t count);
  Mosaic mosaic_of(const void* p) const { return mosaic_at(unit_of(page_of(p))); }

  // --- all that one lane has ----------------------------------------------------------------

  // A large block that belongs to the lane until it is given back: the unit table knows it. It
  // starts at a unit, so that it has an entry. Any thread may give it; false: none starts there.
  void* take_owned_pages(LaneSlabs& lane, PageCount pages, Bytes alignment);
  [[nodiscard]] bool give_owned_pages(void* first);
  // An object begins at p, in a block of pages, that the lane's own thread is likely to free.
  void set_bare(const void* p, const LaneSlabs& lane) {
    units_.set_bare(unit_of(page_of(p)), lane.tag);
  }
  // Gives back all of it, whoever holds it. No other thread may free there meanwhile.
  void give_all(LaneSlabs& lane);
  // Calls visit(Slab) and visit_large(first byte, bytes) for what the lane has. While others work,
  // a hint.
  template <class Visit, class VisitLarge>
  void for_each_of(const LaneSlabs& lane, Visit&& visit, VisitLarge&& visit_large) const;
  // Calls visit(Slab) for the lane's slabs from a unit on until it returns false. Returns whether
  // it never did.
  template <class Visit>
  bool for_each_slab_of(const LaneSlabs& lane, UnitIndex from, Visit&& visit) const;

  // --- pages ------------------------------------------------------------------------------

  // A block of whole pages. `alignment` is a power of two. Null when the buddy has no room:
  // grow() and come again. `zero`: its bytes are known to be zero.
  void* take_pages(PageCount pages, Bytes alignment, BlockKind kind, bool& zero);
  // False: no such block starts there.
  [[nodiscard]] bool give_pages(void* first, BlockKind kind, Contents contents = Contents::recent);
  // See Buddy::change_kind; `first` may be any address in the arena, and with `pages` known it is
  // where a block starts.
  [[nodiscard]] PageCount change_kind(void* first, BlockKind from, BlockKind to,
                                      PageCount most = {BlockWord::kPagesMask}) {
    if (data_offset(first) % kPageBytes != 0) return {0};
    return buddy_.change_kind(page_of(first), from, to, most);
  }
  [[nodiscard]] bool change_kind(void* first, PageCount pages, BlockKind from, BlockKind to) {
    return buddy_.change_kind(page_of(first), pages, from, to);
  }
  // Lengthens or shortens a large block where it is. False: no room behind it.
  [[nodiscard]] bool resize_pages(void* first, PageCount pages, bool& zero);
  // A large block for an object that has outgrown its place and may grow on.
  void* take_pages_with_room(PageCount pages);
  // A place for a large block that grows to so many pages, if what it gains is in memory there and
  // not where it is; null otherwise.
  void* take_pages_in_memory(const void* from, PageCount pages);
  // Whether to move the pages of a large block rather than copy what they hold.
  bool may_move(const void* from) const;
  // Makes the pages of a large block the first ones of another, which is not smaller, and gives the
  // first block back. False: nothing was moved, and `to` is lost.
  [[nodiscard]] bool move_block(void* from, void* to);

  // --- the whole --------------------------------------------------------------------------

  std::uint32_t chunks() const;
  // Adds room for a block of that size and alignment, unless somebody else added chunks since
  // `seen`. False: no memory or no address space is left.
  [[nodiscard]] bool grow(std::uint32_t seen, PageCount pages, Bytes alignment);

  enum class Purge : std::uint8_t {
    aged,    // what was idle for a whole pass; a part of a pass, about a millisecond's worth
    soon,    // also what was not; a part
    at_once  // everything
  };
  // Purges free pages. A part goes on where the last one ended. Returns the bytes given back. Any
  // caller; two at once look at some chunks twice.
  Bytes purge(Purge which);
  // Purges so many free pages, and the rest of the last run, in chunks where something lives: a
  // free one has room for what is large. From the highest on, as blocks go to the lowest; fewer if
  // a few hundred chunks have no more, or only short runs. Any caller.
  Bytes purge_pages(PageCount wanted);
  bool purge_pass_ended() const { return purge_cursor_.load(std::memory_order_relaxed) == 0; }
  // The same for empty pages inside the lane's slabs; those from which nothing was taken for a
  // whole pass are idle. A pass ended when lane.purge_cursor is 0.
  Bytes purge_slabs(LaneSlabs& lane, Purge which);

  // Whether p points into the data of this arena, as far as this view knows.
  bool contains(const void* p) const { return data_offset(p) < data_bytes(); }
  // Takes note of chunks that were added through another view.
  void refresh();
  Place locate(const void* p) const;
  UnitEntry entry_of(const void* p) const {
    return units_.at_offset(data_offset(p));
  }  // p is in it
  // Calls visit(Slab, owner's tag) for every slab. What it sees while others work is a hint.
  template <class Visit>
  void for_each_slab(Visit&& visit) const;
  // The same with visit(Mosaic, owner's tag).
  template <class Visit>
  void for_each_mosaic(Visit&& visit) const;
  const Buddy& buddy() const { return buddy_; }
  std::byte* data() const { return data_; }
  const std::byte* region_base() const { return region_.base; }
  Bytes data_bytes() const { return data_bytes_.load(std::memory_order_relaxed); }  // only grows
  // Bytes of metadata that are committed.
  Bytes metadata_bytes() const;
  // Bytes of metadata, and of data, that are in memory. A system call per 2 MiB.
  Bytes resident_metadata() const;
  Bytes resident_data() const;
  // Of the data, bytes in huge pages.
  Bytes huge_data() const { return os::huge_page_bytes(data_, data_bytes()); }

  // In the child of a fork, which is alone. Empty the inboxes of all lanes, too.
  void after_fork_in_child() {
    growth_lock_.reset();
    if (exists()) buddy_.lift_groups();
    epoch_++;
  }

  // Null, or what is broken. Only while no other thread is in the arena.
  const char* check_invariants() const;

  void* address_of(PageIndex page) const { return data_ + Bytes{page.v} * kPageBytes; }
  PageIndex page_of(const void* p) const {
    return {static_cast<std::uint32_t>(data_offset(p) / kPageBytes)};
  }
  LaneSlabs& lane_at(PageIndex index) const { return *static_cast<LaneSlabs*>(address_of(index)); }

 private:
  Bytes data_offset(const void* p) const {
    return static_cast<Bytes>(reinterpret_cast<std::uintptr_t>(p) -
                              reinterpret_cast<std::uintptr_t>(data_));
  }
  Bytes chunk_offset(std::uint32_t chunk) const {  // in the region
    return static_cast<Bytes>(data_ - region_.base) + Bytes{chunk} * kChunkBytes;
  }
  ChunkMeta& meta(ChunkIndex chunk) const;
  Slab slab_at(UnitIndex first, ClassIndex c) const;
  Mosaic mosaic_at(UnitIndex unit) const;
  UnitIndex slab_unit(const void* slot, const SizeClass& c) const {
    return {static_cast<std::uint32_t>(align_down(data_offset(slot), c.slab_bytes) / kUnitBytes)};
  }
  // Whether what the entry tells of, a slab or a mosaic, starts at this unit.
  bool is_first_unit(UnitIndex unit, UnitEntry entry) const {
    return entry.is_mosaic() ||
           (entry.is_slab() &&
            unit == slab_unit(unit_address(unit), size_class(entry.size_class())));
  }
  const void* unit_address(UnitIndex unit) const { return data_ + Bytes{unit.v} * kUnitBytes; }

  // Calls give(descriptor, word, its index, bits, slots, count) → Give for the slots of each bitmap
  // word, in order. Aborts when one was free already.
  template <class GiveBits>
  void give_by_word(ClassIndex c, void* const* slots, std::uint32_t count, GiveBits&& give);
  std::uint32_t fullest_slab(LaneSlabs& lane, ClassIndex c);
  std::uint32_t take_from(LaneSlabs& lane, ClassIndex c, UnitIndex unit, void** end,
                          std::uint32_t want);
  bool take_back(LaneSlabs& lane, ClassIndex c);
  void heed_plan(LaneSlabs& lane) {
    if (lane.plan != scores_.plan()) [[unlikely]]
      heed_plan_slow(lane);
  }
  [[gnu::noinline, gnu::cold]] void heed_plan_slow(LaneSlabs& lane);
  void take_back_slab(LaneSlabs& lane, ClassIndex c, const Slab& slab);
  template <Bytes kSlabBytes, bool kShort, class GiveBits>
  std::uint32_t give_run_of(ClassIndex c, void* const* slots, std::uint32_t count, GiveBits&& give);
  template <Bytes kSlabBytes, bool kShort, class GiveBits>
  void give_by_word_of(ClassIndex c, void* const* slots, std::uint32_t count, GiveBits&& give);
  [[gnu::noinline]] Give give_and_place(LaneSlabs& lane, ClassIndex c, std::uint32_t w,
                                        std::uint64_t bits, void* const* slots,
                                        std::uint32_t count);
  bool create_slab(LaneSlabs& lane, ClassIndex c);
  void retire_slab(LaneSlabs& lane, ClassIndex c, const Slab& slab);
  void place(LaneSlabs& lane, ClassIndex c, const Slab& slab);  // into the right list
  void move_to_list(LaneSlabs& lane, ClassIndex c, const Slab& slab, std::uint8_t list);
  static std::uint32_t& head_of(LaneSlabs& lane, ClassIndex c, std::uint8_t list) {
    return list == LaneSlabs::kAsideList ? lane.aside[c.v] : lane.head[c.v][list];
  }
  void link(LaneSlabs& lane, ClassIndex c, const Slab& slab, std::uint8_t list);
  static void set_list(SlabDescriptor& d, ClassIndex c, std::uint8_t list);
  void unlink(LaneSlabs& lane, ClassIndex c, const Slab& slab);
  void note_given(LaneSlabs& lane, ClassIndex c, std::uint32_t slots);
  void after_give(LaneSlabs& lane, ClassIndex c, const Slab& slab);
  void notify_owner(UnitIndex unit, ClassIndex c);
  void pass_on(const LaneSlabs& lane, UnitIndex unit);
  [[noreturn]] void report_double_free(void* const* slots, std::uint32_t count) const;
  bool drain_announced(LaneSlabs& lane, UnitIndex unit);
  void prefetch_drain(UnitIndex unit) const;
  bool drain_slab(LaneSlabs& lane, UnitIndex unit);
  std::atomic<std::uint32_t>& next_pending(UnitIndex unit) const;
  void give_slab_block(LaneSlabs& lane, UnitIndex first, std::uint32_t units);
  std::uint32_t take_gaps(LaneSlabs& lane, ClassIndex c, void** slots, std::uint32_t want);
  bool make_mosaic(LaneSlabs& lane);
  bool take_back_mosaics(LaneSlabs& lane);
  std::uint32_t find_drained(const LaneSlabs& lane, ClassIndex c, std::uint8_t list) const;
  void recut(LaneSlabs& lane, ClassIndex c, UnitIndex unit);
  void forget_slabs(LaneSlabs& lane);
  static void note_unit(LaneSlabs& lane, UnitIndex unit);
  void link_mosaic(LaneSlabs& lane, UnitIndex unit);
  bool drain_mosaic(LaneSlabs& lane, UnitIndex unit);
  void retire_mosaic(LaneSlabs& lane, UnitIndex unit);
  void recover_mosaic(LaneSlabs& lane, UnitIndex unit);
  template <class View>
  Bytes purge_empty_pages(View&& view, Purge which, std::uint32_t& runs);
  Bytes purge_chunk(ChunkIndex chunk, bool all, Bytes& left);
  void mend(ChunkIndex chunk);
  void set_torn(PageIndex first, PageCount pages, bool torn);
  void choose_pages(std::uint32_t first, std::uint32_t count) const;
  bool may_be_huge(ChunkIndex chunk) const;
  bool is_worth_a_huge_page(ChunkIndex chunk) const;
  void publish_chunks(std::uint32_t count);
  bool grow_locked(std::uint32_t needed);
  os::Commit add_chunks(std::uint32_t first, std::uint32_t count, bool replace);
  bool add_taken_chunk(std::uint32_t chunk);
  bool unmap_free_chunks();
  std::uint32_t remap_chunks(std::uint32_t needed);
  os::Commit commit_metadata(std::uint32_t first, std::uint32_t count, bool replace);

  ArenaHeader* header_ = nullptr;  // const since create or attach, like the next four
  ChunkMeta* meta_ = nullptr;
  // What free(p) reads. In one cache line, and not at its beginning: there magazines have the words
  // that hit paths store to, and to the processor a load from the same place in another page seems
  // to wait for the store (8 % of a program that does little else).
  std::byte* data_ = nullptr;
  UnitTable units_;
  std::atomic<Bytes> data_bytes_{};  // atomic: who grows the arena → all; see refresh()

  Buddy buddy_;
  os::Region region_;

  UnitScores scores_;                            // of the process's arena alone
  std::uint32_t epoch_ = 1;                      // changes only in a process of one thread
  std::atomic<std::uint32_t> purge_cursor_ = 0;  // atomic: purger → purger; the chunk to go on with
  std::atomic<std::uint32_t> torn_chunks_ = 0;  // atomic: any → any

  Lock growth_lock_;
  std::uint32_t metadata_chunks_ = 0;  // lock: growth_lock_; metadata is committed for these
  std::uint32_t growing_to_ = 0;       // lock: growth_lock_; not 0: chunks being added now
  std::uint32_t unmapped_chunks_ = 0;  // lock: growth_lock_; at least so many blocks are unmapped
};

// One chunk's metadata, each group on pages of its own: a class of 256-byte slots never touches
// the long bitmaps, and a program of one thread never touches the remote ones.
struct ChunkMeta {
  static constexpr std::uint32_t kShortWords = 16;  // slots of 64 bytes and more
  static constexpr std::uint32_t kLongWords = 64;

  SlabDescriptor slab[kUnitsPerChunk];
  BitmapWord short_free[kUnitsPerChunk][kShortWords];
  BitmapWord short_remote[kUnitsPerChunk][kShortWords];
  ChunkRows rows;
  BitmapWord long_free[kUnitsPerChunk][kLongWords];
  BitmapWord long_remote[kUnitsPerChunk][kLongWords];
  BitmapWord mosaic_free[kUnitsPerChunk][kGrainWords];
  BitmapWord mosaic_start[kUnitsPerChunk][kGrainWords];

  // Words from a slab's free bits to its remote bits.
  static constexpr Bytes kShortDistance = Bytes{kUnitsPerChunk} * kShortWords;
  static constexpr Bytes kLongDistance = Bytes{kUnitsPerChunk} * kLongWords;
};
static_assert(offsetof(ChunkMeta, short_remote) - offsetof(ChunkMeta, short_free) ==
              ChunkMeta::kShortDistance * sizeof(BitmapWord));
static_assert(offsetof(ChunkMeta, long_remote) - offsetof(ChunkMeta, long_free) ==
              ChunkMeta::kLongDistance * sizeof(BitmapWord));
static_assert(sizeof(ChunkMeta) % kPageBytes == 0);
static_assert(sizeof(ChunkMeta::slab) % kPageBytes == 0);

inline ChunkMeta& Arena::meta(ChunkIndex chunk) const { return meta_[chunk.v]; }

inline Slab Arena::slab_at(UnitIndex first, ClassIndex c) const {
  ChunkMeta& m = meta(chunk_of(first));
  const std::uint32_t u = first.v % kUnitsPerChunk;
  const bool is_short = size_class(c).words <= ChunkMeta::kShortWords;
  return {m.slab[u], is_short ? m.short_free[u] : m.long_free[u],
          is_short ? m.short_remote[u] : m.long_remote[u], data_ + Bytes{first.v} * kUnitBytes, c};
}

inline std::atomic<std::uint32_t>& Arena::next_pending(UnitIndex unit) const {
  return meta(chunk_of(unit)).slab[unit.v % kUnitsPerChunk].next_pending;
}

inline Mosaic Arena::mosaic_at(UnitIndex unit) const {
  ChunkMeta& m = meta(chunk_of(unit));
  const std::uint32_t u = unit.v % kUnitsPerChunk;
  return {m.slab[u], m.mosaic_free[u], m.mosaic_start[u], data_ + Bytes{unit.v} * kUnitBytes};
}

inline void Arena::place(LaneSlabs& lane, ClassIndex c, const Slab& slab) {
  const auto list =
      static_cast<std::uint8_t>(fullness(slab.size_class_info(), slab.descriptor().used));
  if (list != slab.descriptor().list) [[unlikely]]
    move_to_list(lane, c, slab, list);
}

// The fullest one with room that is to stay, or kNone.
inline std::uint32_t Arena::fullest_slab(LaneSlabs& lane, ClassIndex c) {
  while (lane.nonempty[c.v] != 0) {
    const std::uint32_t unit = lane.head[c.v][std::bit_width(lane.nonempty[c.v]) - 1];
    if (scores_[UnitIndex{unit}] == 0) [[likely]]
      return unit;
    move_to_list(lane, c, slab_at(UnitIndex{unit}, c), LaneSlabs::kAsideList);
  }
  return kNone;
}

template <class Visit>
void Arena::for_each_mosaic(Visit&& visit) const {
  const std::uint32_t units = chunks() * kUnitsPerChunk;
  for (std::uint32_t u = 0; u < units; u++) {
    const UnitEntry entry = units_[UnitIndex{u}];
    if (entry.is_mosaic()) visit(mosaic_at(UnitIndex{u}), entry.tag());
  }
}

template <class Visit, class VisitLarge>
void Arena::for_each_of(const LaneSlabs& lane, Visit&& visit, VisitLarge&& visit_large) const {
  for (std::uint32_t u = lane.first_unit; u < lane.end_unit; u++) {
    const UnitIndex unit{u};
    const UnitEntry entry = units_[unit];
    if (entry.tag() != lane.tag) continue;
    if (entry.is_large()) {
      visit_large(address_of(first_page(unit)), bytes_of(buddy_.pages_at(first_page(unit))));
    } else if (entry.is_slab()) {
      const ClassIndex c = entry.size_class();
      visit(slab_at(unit, c));
      u += size_class(c).slab_bytes / kUnitBytes - 1;
    }
  }
}

template <class Visit>
bool Arena::for_each_slab_of(const LaneSlabs& lane, UnitIndex from, Visit&& visit) const {
  std::uint32_t u = from.v > lane.first_unit ? from.v : static_cast<std::uint32_t>(lane.first_unit);
  while (u < lane.end_unit) {
    const UnitEntry entry = units_[UnitIndex{u}];
    const bool is_one =
        entry.tag() == lane.tag && entry.is_slab() && is_first_unit(UnitIndex{u}, entry);
    if (is_one && !visit(slab_at(UnitIndex{u}, entry.size_class()))) return false;
    u += is_one ? size_class(entry.size_class()).slab_bytes / kUnitBytes : 1;
  }
  return true;
}

template <class Visit>
void Arena::for_each_slab(Visit&& visit) const {
  const std::uint32_t units = chunks() * kUnitsPerChunk;
  for (std::uint32_t u = 0; u < units; u++) {
    const UnitEntry entry = units_[UnitIndex{u}];
    if (!entry.is_slab()) continue;
    const ClassIndex c = entry.size_class();
    visit(slab_at(UnitIndex{u}, c), entry.tag());
    u += size_class(c).slab_bytes / kUnitBytes - 1;
  }
}

}  // namespace ashlar
