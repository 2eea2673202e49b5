// SPDX-License-Identifier: MIT
// L4 · thread_cache: magazines of free slots, and the two paths that every program lives on.
//
// What:    a lane is one thread's lease on the arena: the slabs it owns and, per size class, a
//          magazine of free slots. malloc pops, free pushes; neither touches the object, the
//          slab, or anything that another thread writes.
// How:     a magazine has two stacks (Bonwick, "Magazines and Vmem", USENIX 2001). With one, a
//          free and the malloc after it would meet in the same word and wait for each other.
//
//            take  │ a b c d          malloc pops d; when take is dry, the stacks change places;
//            give  │ x y              free pushes behind y   when both are, refill_slow()
//
//          The word below a stack is null, so that popping an empty one yields null. Stacks start
//          with a page's worth of slots, double when a refill or flush shows that they are too
//          small, and hold at most a slab's worth. They lie apart from user memory. A slot that another lane owns goes
//          to `remote`, from where one atomic step frees all neighbours in a bitmap word.
// Invariants (check_invariants() tests these by number):
//   1  each stack lies within its bounds, above a null word
//   2  what is in a stack is a slot of its class, owned by this lane, and not at rest
//   3  no slot is twice in the stacks of a lane
// Threads: the lane's own. Others may read counts.
// Fork:    one store commits each push and pop; a lane whose owner died inside a slow path has
//          `busy` set, and its stacks are not believed.
// Not here: who gets which lane (heap).
#pragma once

#include "arena.h"
#include "owned.h"
#include "size_class.h"
#include "unit_table.h"

namespace ashlar {

using Stack = void**;

// The stacks of a magazine that has none yet: null below, no room above.
inline constinit void* no_stack[1] = {nullptr};

struct alignas(kMagazineBytes) Magazine {
  Owned<Stack> take = no_stack + 1;       // owner → reports: behind the slot to hand out next
  Owned<Stack> give = no_stack + 1;       // owner → reports: where the next freed slot goes
  Stack give_end = no_stack + 1;          // owner: `give` never passes it
  std::uint64_t magic = 0;                // const: see slot_index()
  std::uint32_t slab_mask = 0;            // const: slab_bytes - 1
  std::uint16_t capacity = 0;             // owner: slots per stack
  bool used = false;                      // owner: had a slow call since the last trim
  Owned<Stack> take_base = no_stack + 1;  // owner → reports
  Owned<Stack> give_base = no_stack + 1;  // owner → reports

  // Slots in both stacks; a hint to other threads.
  std::uint32_t count() const {
    return static_cast<std::uint32_t>((take - take_base) + (give - give_base));
  }
};
static_assert(sizeof(Magazine) == kMagazineBytes);
static_assert(kClassCount * kMagazineBytes <= kTagGrain, "an entry holds a magazine's offset");

// Large blocks that a thread freed last, to be handed out again without looking for pages.
struct LargeCache {
  static constexpr std::uint32_t kBlocks = 8;
  static constexpr Bytes kMostBytes = 2 * kMiB;  // all blocks together

  void* block[kBlocks] = {};            // owner: oldest first
  Owned<std::uint32_t> pages[kBlocks];  // owner → reports
  Owned<std::uint32_t> count;           // owner → reports
  Bytes bytes = 0;                      // owner: of all blocks
  bool used = false;                    // owner: since the last trim
};

struct alignas(kPageBytes) Lane {
  static constexpr std::uint32_t kRemoteSlots = 256;

  Magazine magazine[kClassCount];  // must come first, see UnitEntry

  // The rest of the first page.
  Lane* next_lane = nullptr;          // const: the list of all lanes
  Lane* next_pooled = nullptr;        // lock: Heap::pool_lock_
  bool leased = false;                // lock: Heap::pool_lock_
  bool orphaned = false;              // lock: Heap::pool_lock_; its owner died, see recover()
  std::atomic<bool> busy = false;     // atomic: owner → a forked child; in a slow path
  bool lost_notifications = false;    // owner: a fork emptied the inbox, see refill_slow()
  std::uint32_t slow_calls = 0;       // owner: to look at the clock only now and then
  std::uint64_t trim_due_ms = 0;      // owner: when to trim again
  Stack stack_room = nullptr;         // owner: unused words behind the stacks
  Owned<std::uint32_t> remote_count;  // owner → reports
  LargeCache large;                   // owner

  // The second page. Remote frees write here, to a line of its own.
  alignas(kPageBytes) LaneSlabs slabs{};
  void* remote[kRemoteSlots] = {};  // owner: slots of other lanes, not yet given back

  // Stacks are cut from what follows, to the end of the lane's pages.
  Stack stacks() { return remote + kRemoteSlots; }
};

// Virtual size of a lane; pages behind the second are touched when stacks grow into them.
inline constexpr PageCount kLanePages{104};

// What malloc and free read first. In one cache line, set once.
extern constinit Arena arena;

// A lane without slots or room: what a thread has before its first lease and after its last. The
// hit paths need no other check.
extern constinit Lane no_lane;

// This thread's lane, as its distance from no_lane: zero, and so right, even before the loader has
// given thread-local variables their first values (malloc in an IFUNC resolver). Initial-exec, and
// no more than a word: dlopen of the library must not run out of static TLS.
extern constinit thread_local std::ptrdiff_t t_lane_distance
    __attribute__((tls_model("initial-exec")));

inline Lane* this_lane() {
  return reinterpret_cast<Lane*>(reinterpret_cast<std::byte*>(&no_lane) + t_lane_distance);
}
inline void set_this_lane(Lane& lane) {
  t_lane_distance = reinterpret_cast<std::byte*>(&lane) - reinterpret_cast<std::byte*>(&no_lane);
}

[[gnu::noinline]] void* take_slow(ClassIndex c);
[[gnu::noinline]] void give_slow(void* p, const char* caller);

// A slot of the class for `bytes` <= kMaxSlotBytes; null and errno when memory is out.
inline void* take_slot(ClassIndex c) {
  Magazine& m = this_lane()->magazine[c.v];
  const Stack top = m.take - 1;
  void* const slot = *top;
  if (slot == nullptr) [[unlikely]]
    return take_slow(c);
  m.take = top;
  return slot;
}

// free(). `caller` is for the message when p is not ours to free.
inline void give_slot(void* p, const char* caller = "free") {
  if (!arena.contains(p)) [[unlikely]]
    return give_slow(p, caller);
  const auto lane = reinterpret_cast<std::uintptr_t>(this_lane());
  const std::uint64_t magazine_offset = arena.entry_of(p).word() ^ lane;
  if (magazine_offset >= kTagGrain) [[unlikely]]
    return give_slow(p, caller);

  Magazine& m = *reinterpret_cast<Magazine*>(lane + magazine_offset);
  const auto offset = static_cast<std::uint32_t>(reinterpret_cast<std::uintptr_t>(p)) & m.slab_mask;
  const Stack top = m.give;
  if (!is_slot_start(offset, m.magic) || top == m.give_end || top[-1] == p) [[unlikely]] {
    return give_slow(p, caller);
  }
  *top = p;
  std::atomic_signal_fence(std::memory_order_release);  // fork sees the slot or the old top
  m.give = top + 1;
}

// A large block of exactly that many pages that this thread freed lately, or null.
void* take_recent_large(PageCount pages);
// Keeps the large block that starts at p at hand. False: it is not for keeping.
bool keep_recent_large(void* p);

// Says on stderr why p cannot be given back (or resized, or measured), and aborts.
[[noreturn, gnu::cold]] void reject(const void* p, const char* caller);

// Gives everything in the lane's magazines back to its slabs, and its remote frees to theirs.
void flush_lane(Lane& lane);
// The same for magazines that had nothing to do since the last call.
void trim_lane(Lane& lane);
// A lane's first state, in zeroed memory inside the arena.
void init_lane(Lane& lane);
// After Arena::recover_lane: takes over what the stacks hold, if they can be believed.
void recover_magazines(Lane& lane);

const char* check_invariants(const Lane& lane);

}  // namespace ashlar
