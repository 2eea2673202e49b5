// SPDX-License-Identifier: MIT
// L5 · movable_pool: a program's heap whose objects move, with the program's help.
//
// What:    each object has a tag, by which the program finds the pointers to it. A pass names
//          objects to be moved and where to; the program copies them, or not; the end of the pass
//          frees what was left. Or a function that the program gives does it, one by one.
// How:     sixteen bytes in front of each object hold its tag and its state:
//
//            settled ──begin──▶ leaving ──end: copied──▶ gone
//               ▲                  └──────end: skipped──▶ settled
//               └──end: copied── arriving ◀──begin── (free slot of a full slab)
//
//          An object that is pinned does not leave. One that is given while it leaves or arrives is
//          only marked; the end of the pass gives it. Which slabs are emptied says Ranking; the
//          place where a pass ended is where the next one goes on.
// Notices: who wants them is told of each pass, by its thread, before and after it.
// Threads: any; one pass at a time. A state changes by single atomic steps; slots are taken,
//          given and looked through under the heap's lock, which is never held while code of the
//          program runs.
// Fork:    a pass goes on in the child if its thread does. Otherwise its objects are put right by
//          the next who wants to pin or begin. Where it can be told which of two places is the
//          object's, the other goes. Otherwise both stay, as if pinned: the program's pointers may
//          lead to either.
#pragma once

#include <atomic>

#include "ashlar/compact.h"
#include "program_heap.h"

namespace ashlar {

class MovablePool {
 public:
  // Whether this is the place of the object with that tag, for who keeps account of places.
  using Names = bool(void* context, std::uint64_t tag, const void* object);

  // The pool behind a handle; aborts when it is none.
  static MovablePool& of(ashlar_pool* handle, const char* caller);
  // The same for who uses tags: it aborts, too, when the pool has handles (pool_handles).
  static MovablePool& with_tags(ashlar_pool* handle, const char* caller);
  ashlar_pool* handle() { return reinterpret_cast<ashlar_pool*>(this); }

  // Null and errno.
  static MovablePool* create(ashlar_relocate* relocate, void* context, Names* names = nullptr);
  // Destroys its objects, too.
  void destroy();

  void* take(Bytes bytes, std::uint64_t tag);
  // These abort when no object of this pool starts there.
  void give(void* object, const char* caller);
  Bytes usable_bytes(const void* object, const char* caller) const;
  std::uint64_t tag(const void* object, const char* caller) const;
  void count(ashlar_heap_stats& stats) const { heap_->count(stats); }
  // False: it is on its way.
  [[nodiscard]] bool pin(void* object, const char* caller);
  void unpin(void* object, const char* caller);

  // Fills moves[0 .. n) and returns how many; see ashlar_pool_begin. `busy`: another pass goes on.
  std::size_t begin(std::uint64_t budget_us, Bytes budget_bytes, ashlar_move* moves, std::size_t n,
                    bool& busy);
  bool should_stop() const;
  void end(const ashlar_move* moves, std::size_t n, ashlar_moved& moved);
  // Passes with the pool's own function. True: there may be more to do. `busy` as above.
  bool compact(std::uint64_t budget_us, Bytes budget_bytes, ashlar_moved& moved, bool& busy);
  bool has_relocate() const { return relocate_ != nullptr; }
  Names* names() const { return names_; }
  void* context() const { return context_; }

 private:
  struct Header;

  static Header& header(const void* object);
  Header& checked_header(const void* object, const char* caller) const;
  bool claim(std::uint64_t budget_us);
  std::size_t propose(Bytes budget_bytes, ashlar_move* moves, std::size_t n);
  void settle(const ashlar_move* moves, std::size_t n, ashlar_moved& moved);
  void release(const ashlar_moved& done, ashlar_moved& moved);
  bool choose(Arena& home, LaneSlabs& slabs, Slab slab, Bytes budget_bytes, ashlar_move* moves,
              std::size_t n, std::size_t& count);
  bool leave(Arena& home, LaneSlabs& slabs, std::byte* slot, ClassIndex c, ashlar_move& move,
             bool& full);
  void give_place(Arena& home, LaneSlabs& slabs, void* object);
  void stay(Arena& home, LaneSlabs& slabs, void* object);
  void leave_pass();
  bool is_in_pass_of_this_thread() const;
  void settle_orphans();
  bool settle_orphan(Header& h) const;

  static constexpr std::uint64_t kMagic = 0x6c'6f'6f'70'6c'68'73'61;  // "ashlpool", read backwards

  std::atomic<std::uint64_t> magic_ = kMagic;  // atomic: destroy → all
  ProgramHeap* heap_ = nullptr;                // const, like the next three
  ashlar_relocate* relocate_ = nullptr;
  void* context_ = nullptr;
  Names* names_ = nullptr;
  std::atomic<std::uint32_t> process_ = 0;  // atomic: who began a pass → all; 0: none goes on
  MovablePool* outer_ = nullptr;  // whose pass it is, like the next four; it is in one of this, too
  std::uint64_t deadline_us_ = 0;
  Bytes bytes_chosen_ = 0;
  bool has_plan_ = false;
  std::uint32_t cursor_ = 0;  // the unit where the next pass goes on

  friend class MovablePools;
  MovablePool* next_ = nullptr;  // lock: MovablePools::lock_
};

}  // namespace ashlar
