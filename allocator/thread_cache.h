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
//          Both paths store first and look then, so below a stack is a null word, which popping an
//          empty one yields, and above it a word to spare. Stacks start with a page's worth of
//          slots or sixteen, double when a second refill or flush finds them too small, and hold
//          at most a slab's worth. They lie apart from user memory. A slot that another lane owns
//          goes to `remote`, from where one atomic step frees all neighbours in a bitmap word.
// Invariants (check_invariants() tests these by number):
//   1  each stack lies within its bounds, above a null word
//   2  what is in a stack is a slot of its class, owned by this lane, and not at rest
//   3  no slot is twice in the stacks of a lane
//   4  null words in the stacks are as many as were reclaimed, and the mark of a sample; what
//      purge_stacks() keeps elsewhere counts as if it were there
// Threads: the lane's own. Others may read counts. One other may do what a slow path does while the
//          owner is in none: it holds `frozen`, and the owner waits for it in its next slow path.
//          The owner pays a load for that, as the kernel supplies the barrier (membarrier). What
//          the stacks hold can be taken even while it is in a hit path, see lane_upkeep.cpp.
// Fork:    one store commits each push and pop; a lane whose owner died inside a slow path has
//          the state `changing`, and its stacks are not believed.
// Not here: who gets which lane (heap).
#pragma once

#include "arena.h"
#include "drain.h"
#include "lock.h"
#include "owned.h"
#include "sample_pace.h"
#include "size_class.h"
#include "unit_table.h"

namespace ashlar {

using Stack = void**;

// Where malloc meets the next sample in `take` (sampler). `none`: not in there. `when_dry`: it was
// filled no further. `at_mark`: at a null word; nobody has looked at what lies behind.
enum class NextSample : std::uint8_t { none, when_dry, at_mark };

struct alignas(kMagazineBytes) Magazine {
  Owned<Stack> take;                          // owner → reports: behind the slot to hand out next
  Owned<Stack> give;                          // owner → reports: where the next freed slot goes
  Owned<Stack> give_end;                      // owner, or who froze the lane: see push_slot()
  std::uint32_t magic = 0;                    // const: see short_magic()
  std::uint32_t slab_mask = 0;                // const: slab_bytes - 1
  std::uint16_t capacity = 0;                 // owner: slots per stack
  bool used = false;                          // owner: had a slow call since the last trim
  NextSample next_sample = NextSample::none;  // owner
  std::uint32_t slot_bytes = 0;               // const
  Owned<Stack> take_base;                     // owner → reports
  Owned<Stack> give_base;                     // owner → reports
  Owned<std::uint32_t> reclaimed;  // owner, or who froze the lane: null words where slots were
  bool missed = false;             // owner: was too small since the last trim, or for this thread
  std::uint8_t sample_doublings = 0;  // owner: of the mean that next_sample was drawn with

  bool has_mark() const { return next_sample == NextSample::at_mark; }
  // Words of a stack. While its owner finds out that `take` is dry, it ends below its base.
  static std::uint32_t words(Stack base, Stack top) {
    return top > base ? static_cast<std::uint32_t>(top - base) : 0;
  }
  // Slots in both stacks; a hint to other threads.
  std::uint32_t count() const {
    const std::uint32_t all = words(take_base, take) + words(give_base, give);
    return all > reclaimed ? all - reclaimed : 0;
  }
};
static_assert(sizeof(Magazine) == kMagazineBytes);
static_assert((kClassCount + 2) * kMagazineBytes <= kTagGrain, "an entry holds an offset");

// Large blocks that a thread freed last, to be handed out again without looking for pages.
struct LargeCache {
  static constexpr std::uint32_t kBlocks = 8;
  static constexpr PageCount kMostPages = pages_for(2 * kMiB);  // all blocks together
  static constexpr PageCount kMostPagesOfOne{kMostPages.v / 2};

  void* block[kBlocks] = {};            // owner: oldest first
  Owned<std::uint32_t> pages[kBlocks];  // owner → reports
  Owned<std::uint32_t> count;           // owner → reports
  Owned<bool> shifting;                 // owner, or who froze the lane → a forked child
  bool used = false;                    // owner: since the last trim

  // Added up: a sum that is kept would have each call wait for the one before it.
  PageCount held() const {
    PageCount sum;
    for (std::uint32_t i = 0, n = count; i < n; i++) sum.v += pages[i];
    return sum;
  }
  // What may be kept beside the others. One block may have half of it all.
  PageCount room() const {
    if (count == kBlocks) return {0};
    const std::uint32_t left = kMostPages.v - held().v;
    return {left < kMostPagesOfOne.v ? left : kMostPagesOfOne.v};
  }
  // There is room.
  void push(void* p, PageCount its_pages) {
    const std::uint32_t n = count;
    block[n] = p;
    pages[n] = its_pages.v;
    count.publish(n + 1);  // fork sees the block or the old count
  }
  [[noreturn, gnu::cold]] static void report_change(std::string_view caller);
};

// Where a lane's owner is: on no slow path, on one, or on one that changes the stacks.
enum class OwnerState : std::uint8_t { outside, inside, changing };

struct alignas(kPageBytes) Lane {
  static constexpr std::uint32_t kRemoteSlots = 256;

  Magazine magazine[kClassCount];  // must come first, see UnitEntry
  Magazine full_magazine[2];       // where UnitEntry::mosaic and ::bare lead free(): always full

  // The rest of the first page.
  Lane* next_lane = nullptr;    // const: the list of all lanes
  Lane* next_pooled = nullptr;  // lock: Heap::pool_lock_
  bool leased = false;          // lock: Heap::pool_lock_
  std::atomic<bool> orphaned =
      false;  // atomic: fork → who leases it; its owner died, see recover()
  std::atomic<OwnerState> owner = OwnerState::outside;  // atomic: owner → who freezes, or recovers
  Lock frozen;             // held by whoever works on the lane instead of its owner
  std::uint64_t seen = 0;  // lock: frozen; what activity() was at the last look
  bool is_bare = false;  // owner, or who froze the lane: its stacks are purged, see purge_stacks()
  bool lost_notifications = false;  // owner: a fork emptied the inbox, see refill_slow()
  std::uint32_t slow_calls = 0;     // owner: to look at the clock only now and then
  std::uint64_t trim_due_ms = 0;    // owner: when to trim again
  Drain drain;                      // owner
  // The stacks of a magazine that has none yet: null below, room for what is to spare above.
  void* no_stack[2] = {};
  SamplePace sample_pace;             // owner: when the next sample is due
  Stack stack_room = nullptr;         // owner: unused words behind the stacks
  Owned<std::uint32_t> remote_count;  // owner → reports
  LargeCache large;                   // owner

  // The second page. Remote frees write here, to a line of its own.
  alignas(kPageBytes) LaneSlabs slabs{};
  // What lay at tops of the stacks when they were purged. As is_bare.
  struct TopWord {
    const Owned<Stack>* top;
    Stack at;
    void* slot;
  } top_words[2 * kClassCount] = {};
  std::uint32_t top_word_count = 0;
  void* remote[kRemoteSlots] = {};  // owner: slots of other lanes, not yet given back

  // Stacks are cut from what follows, to the end of the lane's pages.
  Stack stacks() { return remote + kRemoteSlots; }
};

// Virtual size of a lane; pages behind the second are touched when stacks grow into them.
inline constexpr PageCount kLanePages{104};

// The owner is in a slow path: others keep away until it has left.
class Entered {
 public:
  explicit Entered(Lane& lane, OwnerState state = OwnerState::inside)
      : lane_(lane), before_(lane.owner.load(std::memory_order_relaxed)) {  // own write
    lane.owner.store(before_ > state ? before_ : state, std::memory_order_relaxed);
    // The other half of the barrier is in Frozen.
    std::atomic_signal_fence(std::memory_order_seq_cst);
    if (before_ == OwnerState::outside && lane.frozen.is_held()) [[unlikely]]
      wait_slow(lane, state);
  }
  ~Entered() { lane_.owner.store(before_, std::memory_order_release); }  // pairs with: Frozen
  Entered(const Entered&) = delete;

 private:
  [[gnu::noinline, gnu::cold]] static void wait_slow(Lane& lane, OwnerState state);

  Lane& lane_;
  OwnerState before_;
};

// The same for a path that its owner can do without: not while another is under way, nor while
// somebody works on the lane. It has nothing to restore, so that one call does not wait for what
// the one before it has stored.
class TryEntered {
 public:
  explicit TryEntered(Lane& lane) : lane_(lane) {
    if (lane.owner.load(std::memory_order_relaxed) != OwnerState::outside) return;  // own write
    lane.owner.store(OwnerState::inside, std::memory_order_relaxed);
    std::atomic_signal_fence(std::memory_order_seq_cst);  // pairs with: Frozen, as in Entered
    entered_ = !lane.frozen.is_held();
    if (!entered_) lane.owner.store(OwnerState::outside, std::memory_order_release);
  }
  ~TryEntered() {
    if (entered_) lane_.owner.store(OwnerState::outside, std::memory_order_release);  // as above
  }
  TryEntered(const TryEntered&) = delete;
  explicit operator bool() const { return entered_; }

 private:
  Lane& lane_;
  bool entered_ = false;
};

// Keeps the owner out of its slow paths for as long as this lives. False: it is in one, or the
// kernel has no barrier for us.
class Frozen {
 public:
  explicit Frozen(Lane& lane) : lane_(lane), held_(lane.frozen.try_lock()) {
    if (!held_) return;
    // pairs with: Entered. Either the owner sees `frozen` now, or we see that it is inside.
    held_ = os::barrier_in_all_threads() &&
            lane.owner.load(std::memory_order_acquire) == OwnerState::outside;
    if (!held_) lane.frozen.unlock();
  }
  ~Frozen() {
    if (held_) lane_.frozen.unlock();
  }
  Frozen(const Frozen&) = delete;
  explicit operator bool() const { return held_; }

 private:
  Lane& lane_;
  bool held_;
};

// What malloc and free read first. In one cache line, set once. Hidden, here and below: a place
// that the hit paths reach without a table of addresses.
[[gnu::visibility("hidden")]] extern constinit Arena arena;

// This thread's lane, or kNoLane: no entry of the unit table is near it. Zero until the loader has
// given thread-local variables their first values (malloc in an IFUNC resolver), which free() must
// not meet; ensure_arena() sees to that. Initial-exec, and no more than a word: dlopen of the
// library must not run out of static TLS.
inline constexpr std::uintptr_t kNoLane = ~std::uintptr_t{0};
extern constinit thread_local std::uintptr_t t_lane __attribute__((tls_model("initial-exec")));

// Null: this thread has none, before its first lease, or after its last.
inline Lane* this_lane() {
  const bool is_lane = static_cast<std::intptr_t>(t_lane) > 0;  // one comparison for both others
  return is_lane ? reinterpret_cast<Lane*>(t_lane) : nullptr;
}
inline void set_this_lane(Lane* lane) {
  t_lane = lane != nullptr ? reinterpret_cast<std::uintptr_t>(lane) : kNoLane;
}

// After pop_slot() found nothing, or where there is no lane to pop from.
[[gnu::noinline]] void* take_slow(Bytes requested, ClassIndex c);
[[gnu::noinline]] void give_slow(void* p, const char* caller);

// By sixteenths of a request: where in a lane its magazine is. The processor takes a load for
// dependent on an earlier store at the same offset of another page, for some pages with a loss of
// 20 cycles. free() stores to a magazine, and what malloc() reads next begins behind the last one.
struct alignas(kPageBytes) MagazinePlaces {
  std::byte unused[(kClassCount + 2) * kMagazineBytes];
  std::array<std::uint16_t, kClassOfSize.size()> of_size;
};
consteval MagazinePlaces make_magazine_places() {
  MagazinePlaces places{};
  for (std::size_t i = 0; i < kClassOfSize.size(); i++) {
    places.of_size[i] = static_cast<std::uint16_t>(kClassOfSize[i] * kMagazineBytes);
  }
  return places;
}
inline constexpr MagazinePlaces kMagazinePlaces = make_magazine_places();

// A slot from the magazine; null when that is dry, and then undo_pop() must follow. The new top is
// stored before the slot is read, so that whoever empties the lane of a sleeping owner knows which
// slots can still be read.
inline void* pop_slot(Magazine& m) {
  const Stack top = m.take - 1;
  m.take = top;
  std::atomic_signal_fence(std::memory_order_seq_cst);           // pairs with: reclaim_magazine
  return std::atomic_ref(*top).load(std::memory_order_relaxed);  // ordered by the same
}
inline void undo_pop(Magazine& m) { m.take = m.take + 1; }

// Puts p into the magazine. False: it is full, or p is what it got last. The slot is stored before
// the end is read, so that whoever brings the end forward knows of every slot that is on its way.
[[nodiscard]] inline bool push_slot(Magazine& m, void* p) {
  const Stack top = m.give;
  if (std::atomic_ref(top[-1]).load(std::memory_order_relaxed) == p) [[unlikely]]  // or null since
    return false;
  std::atomic_ref(*top).store(p, std::memory_order_relaxed);
  std::atomic_signal_fence(std::memory_order_seq_cst);  // pairs with: purge_stacks
  if (top >= m.give_end) [[unlikely]]
    return false;
  m.give.publish(top + 1);  // fork, and who froze the lane, see the slot or the old top
  return true;
}

// The lane's magazine for a request of at most kMaxSlotBytes. A table of its own saves a step.
inline Magazine& magazine_for(Lane& lane, Bytes bytes) {
  return *reinterpret_cast<Magazine*>(reinterpret_cast<std::byte*>(&lane) +
                                      kMagazinePlaces.of_size[(bytes + 15) / 16]);
}

// A slot for a request of at most kMaxSlotBytes; null and errno when memory is out.
inline void* take_slot(Bytes requested) {
  if (Lane* const lane = this_lane()) [[likely]] {
    if (void* const slot = pop_slot(magazine_for(*lane, requested))) [[likely]]
      return slot;
  }
  return take_slow(requested, class_for(requested));
}
// The same of a class. Samples remember the request.
inline void* take_slot(ClassIndex c, Bytes requested) {
  if (Lane* const lane = this_lane()) [[likely]] {
    if (void* const slot = pop_slot(lane->magazine[c.v])) [[likely]]
      return slot;
  }
  return take_slow(requested, c);
}
inline void* take_slot(ClassIndex c) { return take_slot(c, size_class(c).slot_bytes); }
// A slot that is at hand for a request of at most kMaxSlotBytes, or null.
inline void* take_at_hand(Bytes requested) {
  Lane* const lane = this_lane();
  if (lane == nullptr) [[unlikely]]
    return nullptr;
  Magazine& m = magazine_for(*lane, requested);
  void* const slot = pop_slot(m);
  if (slot == nullptr) [[unlikely]]
    undo_pop(m);
  return slot;
}

// free(). `caller` is for the message when p is not ours to free.
inline void give_slot(void* p, const char* caller = "free") {
  if (!arena.contains(p)) [[unlikely]]
    return give_slow(p, caller);
  // With the lane's address for a tag, the word is the magazine's address.
  const std::uint64_t magazine = arena.entry_of(p).word();
  if ((magazine ^ t_lane) >= kTagGrain) [[unlikely]]
    return give_slow(p, caller);

  Magazine& m = *reinterpret_cast<Magazine*>(magazine);
  const auto offset = static_cast<std::uint32_t>(reinterpret_cast<std::uintptr_t>(p)) & m.slab_mask;
  if (!is_slot_start(offset, m.magic) || !push_slot(m, p)) [[unlikely]]
    give_slow(p, caller);
}

// The bytes of the slot that starts at p, where the entry says that slots are; 0: none does.
inline Bytes slot_bytes_at(const void* p, UnitEntry entry) {
  if (entry.is_mosaic()) [[unlikely]]
    return arena.mosaic_of(p).bytes_at(p);
  const SizeClass& info = size_class(entry.size_class());
  const auto address = reinterpret_cast<std::uintptr_t>(p);
  const auto offset = static_cast<std::uint32_t>(address) & (info.slab_bytes - 1);
  return is_slot_start(offset, info.magic) ? info.slot_bytes : 0;
}

// An object that is handed out, but not by a magazine, is sampled if it is time. Returns where it
// lies: a slot's object elsewhere, if it is.
void* sampled_slot_if_due(void* slot, ClassIndex c, Bytes requested);
void* sampled_large_if_due(void* p, Bytes bytes, Bytes requested);

// Says on stderr why p cannot be given back (or resized, or measured), and aborts.
[[noreturn, gnu::cold]] void reject(const void* p, const char* caller, const Arena& in = arena);

// Gives everything in the lane's magazines back to its slabs, and its remote frees to theirs. True
// if there was anything.
bool flush_lane(Lane& lane);
// The remote frees alone.
void flush_remote_frees(Lane& lane);
// Another thread will have the lane. It is to take what was freed last, before what nobody has
// touched yet, and stacks are to grow for its own misses.
void prepare_for_next(Lane& lane);
// The same for magazines that had nothing to do since the last call.
void trim_lane(Lane& lane);
// Does for a frozen lane what its owner, who may be asleep, does not: takes over remote frees and,
// when nothing happened there since the last call (or with `all`), gives back what it keeps at
// hand. True: something changed there since the last call, or does now; look again.
bool tend_lane(Lane& lane, bool all);
// What the lane's magazines hold.
Bytes magazine_bytes(const Lane& lane);
// Gives it back; the stacks start small again.
void empty_magazines(Lane& lane);
// A lane's first state, in zeroed memory inside the arena.
void init_lane(Lane& lane);
// After Arena::recover_lane: takes over what the stacks hold, if they can be believed.
void recover_magazines(Lane& lane);
// In a child process: whoever had frozen this lane, the caller's own, is not there.
void recover_frozen(Lane& lane);

const char* check_invariants(const Lane& lane);

}  // namespace ashlar
