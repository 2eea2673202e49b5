// SPDX-License-Identifier: MIT
#include "thread_cache.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <new>
#include <utility>

#include "heap.h"
#include "lane_parts.h"
#include "large_hits.h"
#include "maintenance.h"
#include "options.h"
#include "sampler.h"

namespace ashlar {

constinit Arena arena;

namespace {

// Bounds on the slots of one stack.
constexpr std::uint32_t kMostSlots = 1024;
constexpr std::uint32_t kLeastSlots = 4;
// Slots of the first stack, or a page's worth if that is more; fewer where kMostBytes says so.
constexpr std::uint32_t kFirstSlots = 16;
constexpr Bytes kMostBytes = 64 * kKiB;
// Stacks below this, those of the larger classes, grow also when they are exchanged.
constexpr std::uint32_t kBriskSlots = 8;

constexpr std::uint32_t slots_in(Bytes bytes, const SizeClass& c) {
  const auto fit = static_cast<std::uint32_t>(bytes / c.slot_bytes);
  return fit < kLeastSlots ? kLeastSlots : fit > kMostSlots ? kMostSlots : fit;
}
// The bound of a class's stacks. A table, as many an exchange asks.
constexpr auto kMostSlotsOf = [] {
  std::array<std::uint16_t, kClassCount> most{};
  for (std::uint32_t c = 0; c < kClassCount; c++) {
    most[c] = static_cast<std::uint16_t>(slots_in(kMostBytes, kSizeClasses[c]));
  }
  return most;
}();

// With outgrown stacks left behind and a word below and above each, all of them fit into a lane: a
// class has two stacks, at most ten sizes of each, and together they are less than twice the last.
consteval Bytes most_stack_bytes() {
  Bytes words = 0;
  for (const std::uint32_t most : kMostSlotsOf) words += 2 * (2 * most + 2 * 10);
  return words * sizeof(void*);
}
static_assert(sizeof(Lane) + most_stack_bytes() <= bytes_of(kLanePages));

// Removes null words. True: in `take` may be left what nobody has drawn samples for.
[[gnu::noinline, gnu::cold]] bool settle_slow(Magazine& m) {
  void* const nothing = nullptr;
  m.take = std::remove(static_cast<Stack>(m.take_base), static_cast<Stack>(m.take), nothing);
  m.give = std::remove(static_cast<Stack>(m.give_base), static_cast<Stack>(m.give), nothing);
  m.reclaimed = 0;
  const bool undrawn = m.has_mark();
  m.next_sample = NextSample::none;  // `take` will run dry too early
  return undrawn;
}

inline void exchange_stacks(Magazine& m) {
  const Stack top = m.take;
  const Stack base = m.take_base;
  m.take = m.give;
  m.take_base = m.give_base;
  m.give = top;
  m.give_base = base;
  m.give_end = base + m.capacity;
}

void flush_stack(Lane& lane, ClassIndex c, Stack base, Stack top) {
  if (top != base) give_slots(lane, c, base, static_cast<std::uint32_t>(top - base));
}

// --- sampling: see sampler.h for how, and why nothing else must know of it -----------------------

// A slot that a slow path hands out may be a sample: that was found before, or is now. The mean
// with which it was, or 0.
std::uint32_t sample_mean(Lane& lane, ClassIndex c) {
  if (!Sampler::is_on()) [[likely]]
    return 0;
  Magazine& m = lane.magazine[c.v];
  const NextSample found = m.next_sample;
  m.next_sample = NextSample::none;
  return found != NextSample::none ? SamplePace::mean_kib(m.sample_doublings)
                                   : lane.sample_pace.mean_if_due(size_class(c).slot_bytes);
}

// Of the next `slots` slots, how many come before one that is sampled.
std::uint32_t slots_before_sample(Lane& lane, ClassIndex c, std::uint32_t slots) {
  if (!Sampler::is_on()) [[likely]]
    return slots;
  lane.magazine[c.v].sample_doublings = lane.sample_pace.doublings();
  return lane.sample_pace.slots_before(size_class(c).slot_bytes, slots);
}

// So many slots, for which nothing was drawn yet, are handed out before the next sample: nearly
// always.
bool passes_sample(Lane& lane, ClassIndex c, std::uint32_t slots) {
  if (!Sampler::is_on()) [[likely]]
    return true;
  const Magazine& m = lane.magazine[c.v];
  return m.next_sample == NextSample::none && lane.sample_pace.passes(slots * Bytes{m.slot_bytes});
}

// The first slot of a `take` of which nothing was drawn for yet. If there is a sample among the
// others, its place gets the mark, and what was there goes first.
void* pop_and_mark(Lane& lane, ClassIndex c) {
  Magazine& m = lane.magazine[c.v];
  const auto others = static_cast<std::uint32_t>(m.take - m.take_base) - 1;
  const std::uint32_t before = slots_before_sample(lane, c, others);
  if (before == others) return *(m.take = m.take - 1);
  m.next_sample = NextSample::at_mark;
  return std::exchange(m.take[-1 - static_cast<std::ptrdiff_t>(before)], nullptr);
}

bool is_at_null(const Magazine& m) { return m.take != m.take_base && m.take[-1] == nullptr; }
// malloc has come to the mark.
bool is_at_mark(const Magazine& m) { return m.has_mark() && is_at_null(m); }

// What was freed last is in `take` now. If there is a sample among it, its place gets the mark, and
// what was there is given back. Until malloc comes to the mark, all goes as it would without.
void mark(Lane& lane, ClassIndex c) {
  Magazine& m = lane.magazine[c.v];
  const auto slots = static_cast<std::uint32_t>(m.take - m.take_base);
  if (passes_sample(lane, c, slots)) return;
  const std::uint32_t before = slots_before_sample(lane, c, slots);
  if (before == slots) return;
  const Stack place = m.take - 1 - static_cast<std::ptrdiff_t>(before);
  flush_stack(lane, c, place, place + 1);
  *place = nullptr;
  m.next_sample = NextSample::at_mark;
}

// This thread's lane pays for a sample.
void pay_for_sample() {
  if (Lane* const lane = this_lane()) lane->sample_pace.pay();
}

// Where the object lies that gets the slot; one that is sampled if there is a mean.
void* noted(void* slot, ClassIndex c, Bytes requested, std::uint32_t mean_kib) {
  if (mean_kib == 0) return slot;
  pay_for_sample();
  return sampler.note_slot(slot, size_class(c).slot_bytes, requested, mean_kib);
}

// The same for one object of that size, which does not come from a magazine.
std::uint32_t sample_mean(Bytes bytes) {
  if (!Sampler::is_on()) [[likely]]
    return 0;
  if (Lane* const lane = this_lane()) return lane->sample_pace.mean_if_due(bytes);
  SamplePace of_nobody;
  of_nobody.start();
  return of_nobody.mean_if_due(bytes);
}

// Doubles the stacks of a class, up to its bound.
void grow_magazine(Lane& lane, ClassIndex c) {
  Magazine& m = lane.magazine[c.v];
  const std::uint32_t most = kMostSlotsOf[c.v];
  if (m.capacity == most) return;
  // The next of most, most / 2, most / 4 …: so all the stacks of a class together are less than
  // twice the last.
  const std::uint32_t first =
      std::min(most, std::max(kFirstSlots, slots_in(kPageBytes, size_class(c))));
  const std::uint32_t least = m.capacity == 0 ? first : m.capacity + 1u;
  std::uint32_t capacity = most;
  while (capacity / 2 >= least) capacity /= 2;

  const auto new_stack = [&](Stack base, Stack top) {
    const Stack stack = lane.stack_room + 1;
    lane.stack_room = stack + capacity + 1;
    ASHLAR_ASSERT(reinterpret_cast<std::byte*>(lane.stack_room) <=
                  reinterpret_cast<std::byte*>(&lane) + bytes_of(kLanePages));
    stack[-1] = nullptr;
    std::memcpy(stack, base, static_cast<std::size_t>(top - base) * sizeof *base);
    return stack;
  };
  const auto taken = m.take - m.take_base;
  const auto given = m.give - m.give_base;
  m.take_base = new_stack(m.take_base, m.take);
  m.take = m.take_base + taken;
  m.give_base = new_stack(m.give_base, m.give);
  m.give = m.give_base + given;
  m.give_end = m.give_base + capacity;
  m.capacity = static_cast<std::uint16_t>(capacity);
}

// One miss may be chance. With the next, the stacks are too small.
void note_miss(Lane& lane, ClassIndex c) {
  Magazine& m = lane.magazine[c.v];
  if (m.missed || m.capacity == 0) grow_magazine(lane, c);
  m.missed = true;
}

// Keeps what the magazines hold under magazine_kib. The largest classes go first; some room is
// made at once, or the next call would be back.
void enforce_budget(Lane& lane) {
  Bytes budget = static_cast<Bytes>(options.magazine_kib) * kKiB;
  Bytes held = magazine_bytes(lane);
  if (held > budget) budget -= budget / 4;
  for (std::uint32_t c = kClassCount; held > budget && c-- > 0;) {
    held -= Bytes{lane.magazine[c].count()} * kSizeClasses[c].slot_bytes;
    flush_magazine(lane, ClassIndex{c});
  }
}

constexpr std::uint32_t kSlowCallsPerTick = 16;

void tick(Lane& lane) {
  maintenance.notice_activity();
  if (++lane.slow_calls % kSlowCallsPerTick != 0) return;
  enforce_budget(lane);
  maintenance.tick(&lane);
}

// Both stacks are dry.
[[gnu::noinline]] void* refill_slow(Lane& lane, ClassIndex c, Bytes requested) {
  tick(lane);
  if (lane.lost_notifications) {
    lane.lost_notifications = false;
    arena.drain_slabs(lane.slabs);
  }
  note_miss(lane, c);
  Magazine& m = lane.magazine[c.v];
  m.used = true;
  const std::uint32_t others = m.capacity - 1u;
  std::uint32_t mean_kib = 0;
  std::uint32_t before = others;
  if (!passes_sample(lane, c, m.capacity)) [[unlikely]] {
    mean_kib = sample_mean(lane, c);
    before = slots_before_sample(lane, c, others);
  }
  const std::uint32_t want = 1 + before;
  if (!arena.has_room(lane.slabs, c)) heap.adopt_slab(lane, c);
  for (;;) {
    const std::uint32_t seen = arena.chunks();
    const Stack base = m.take_base;
    const std::uint32_t taken = arena.take_slots(lane.slabs, c, base, want);
    if (taken != 0) {
      if (taken == want && before < others) m.next_sample = NextSample::when_dry;
      m.take = base + taken - 1;
      return noted(base[taken - 1], c, requested, mean_kib);
    }
    const PageCount slab = pages_for(size_class(c).slab_bytes);
    if (!heap.make_room(seen, slab, bytes_of(slab))) {
      errno = ENOMEM;
      return nullptr;
    }
  }
}

// `give` is full. What is in `take` was not needed for longer, so that goes.
[[gnu::noinline]] void flush_slow(Lane& lane, ClassIndex c) {
  Busy busy(lane);
  tick(lane);
  Magazine& m = lane.magazine[c.v];
  // Before the stacks' bounds are believed: null words are no slots.
  const bool undrawn = m.reclaimed != 0 && settle_slow(m);
  m.used = true;
  m.give_end = m.give_base + m.capacity;  // see purge_stacks()
  if (m.give != m.give_end && !undrawn) return;
  if (m.has_mark()) settle_slow(m);
  if (m.take != m.take_base || m.capacity == 0) {
    const Stack top = m.take;
    m.take = m.take_base;
    m.next_sample = NextSample::none;
    flush_stack(lane, c, m.take_base, top);
    note_miss(lane, c);
    if (m.give != m.give_end) return;
  }
  exchange_stacks(m);
  mark(lane, c);
}

// A slot of another lane.
void give_remote(void* p) {
  Lane* const lane = heap.lane_for_this_thread();
  if (lane == nullptr) {
    return arena.give_remote(&p, 1);
  }
  Entered entered(*lane);
  const std::uint32_t count = lane->remote_count;
  lane->remote[count] = p;
  lane->remote_count = count + 1;
  if (count + 1 < Lane::kRemoteSlots) return;
  Busy busy(*lane);
  tick(*lane);
  flush_remote(*lane);
}

// An object of a heap that the program made. It goes there at once: were it kept at hand here, the
// heap might be destroyed meanwhile.
void give_to_program_heap(void* p, const char* caller) {
  maintenance.notice_activity();
  if (arena.entry_of(p).is_large()) {
    // Other large blocks may share the unit.
    if (!arena.give_owned_pages(p) && !heap.give_large(p)) reject(p, caller);
    return;
  }
  if (slot_bytes_at(p, arena.entry_of(p)) == 0) reject(p, caller);
  arena.give_remote(&p, 1);
}

// Anything but a large block that comes and goes.
[[gnu::noinline]] void give_other_slow(void* p, const char* caller) {
  if (p == nullptr) return;
  if (!arena.contains(p)) {
    if (arena.exists()) arena.refresh();
    if (!arena.contains(p)) reject(p, caller);
  }
  const UnitEntry entry = arena.entry_of(p);
  // Also beside a large block of a program's heap.
  if (Sampler::is_on() && !entry.has_slots()) [[unlikely]] {
    if (void* const slot = sampler.take_back(p)) return give_slot(slot, caller);
  }
  if (entry.is_free()) {
    if (!heap.give_large(p)) reject(p, caller);
    return;
  }
  if (entry.is_of_program_heap()) return give_to_program_heap(p, caller);
  const Bytes bytes = slot_bytes_at(p, entry);
  if (bytes == 0) reject(p, caller);
  const ClassIndex c = class_for(bytes);
  Lane* const lane = this_lane();
  if (lane == nullptr || entry.tag() != reinterpret_cast<std::uintptr_t>(lane)) {
    // Read once: whoever freezes the lane may empty it now.
    const std::uint32_t count = lane != nullptr ? std::uint32_t{lane->remote_count} : 0;
    if (count != 0 && lane->remote[count - 1] == p) reject(p, caller);
    return give_remote(p);
  }
  Magazine& m = lane->magazine[c.v];
  for (; !push_slot(m, p); flush_slow(*lane, c)) {
    if (std::atomic_ref(m.give[-1]).load(std::memory_order_relaxed) == p) reject(p, caller);
  }
}

}  // namespace

constinit thread_local std::uintptr_t t_lane = kNoLane;

Bytes magazine_bytes(const Lane& lane) {
  Bytes bytes = 0;
  for (std::uint32_t c = 0; c < kClassCount; c++) {
    bytes += Bytes{lane.magazine[c].count()} * kSizeClasses[c].slot_bytes;
  }
  return bytes;
}

void init_magazines(Lane& lane) {
  lane.stack_room = lane.stacks();
  if (Sampler::is_on()) lane.sample_pace.start();
  const auto init = [&lane](Magazine& magazine, std::uint32_t magic, std::uint32_t slab_mask,
                            std::uint32_t slot_bytes) {
    Magazine* const m = new (&magazine) Magazine;
    m->take = m->give = m->give_end = m->take_base = m->give_base = lane.no_stack + 1;
    m->magic = magic;
    m->slab_mask = slab_mask;
    m->slot_bytes = slot_bytes;
  };
  for (std::uint32_t c = 0; c < kClassCount; c++) {
    const SizeClass& info = kSizeClasses[c];
    init(lane.magazine[c], short_magic(info), info.slab_bytes - 1, info.slot_bytes);
  }
  for (Magazine& full : lane.full_magazine) init(full, 1, 0, 1);  // any address is a slot's
}

void give_slots(Lane& lane, ClassIndex c, void* const* slots, std::uint32_t count) {
  arena.give_slots(lane.slabs, c, slots, count);
}

void flush_magazine(Lane& lane, ClassIndex c) {
  Magazine& m = lane.magazine[c.v];
  if (m.reclaimed != 0 || m.has_mark()) settle_slow(m);
  const Stack take = m.take;
  const Stack give = m.give;
  m.take = m.take_base;
  m.give = m.give_base;
  m.next_sample = NextSample::none;
  flush_stack(lane, c, m.take_base, take);
  flush_stack(lane, c, m.give_base, give);
}

void prepare_for_next(Lane& lane) {
  Busy busy(lane);
  for (Magazine& m : lane.magazine) {
    m.missed = false;
    const auto given = m.give - m.give_base;
    if (given == 0 || Sampler::is_on()) continue;  // which counts what leaves `take`
    if (m.take - m.take_base + given > m.capacity) {
      exchange_stacks(m);
    } else {
      m.take = std::copy_n(static_cast<Stack>(m.give_base), given, static_cast<Stack>(m.take));
      m.give = m.give_base;
    }
  }
}

void flush_remote(Lane& lane) {
  const std::uint32_t count = lane.remote_count;
  lane.remote_count = 0;
  arena.give_remote(lane.remote, count);
}

void* sampled_slot_if_due(void* slot, ClassIndex c, Bytes requested) {
  return noted(slot, c, requested, sample_mean(size_class(c).slot_bytes));
}

void* sampled_large_if_due(void* p, Bytes bytes, Bytes requested) {
  const std::uint32_t mean_kib = sample_mean(bytes);
  if (mean_kib == 0) return p;
  pay_for_sample();
  sampler.note_large(p, bytes, requested, mean_kib);
  return p;
}

void* take_slow(Bytes requested, ClassIndex c) {
  if (Lane* const popped = this_lane()) undo_pop(popped->magazine[c.v]);
  // A lane that another thread had before may bring full stacks.
  Lane* const lane = heap.lane_for_this_thread();
  if (lane == nullptr) {
    void* const slot = heap.take_shared(c);
    return slot == nullptr ? nullptr : sampled_slot_if_due(slot, c, requested);
  }
  Busy busy(*lane);
  Magazine& m = lane->magazine[c.v];
  const bool at_mark = is_at_mark(m);
  if (at_mark) m.take = m.take - 1;
  // The child of a handler that interrupted the pop has not counted the word that was above the
  // top.
  if (m.reclaimed != 0 || is_at_null(m)) [[unlikely]]
    settle_slow(m);
  const bool dry = m.take == m.take_base;
  if (dry && m.give != m.give_base) {
    m.used = true;
    exchange_stacks(m);
    if (m.capacity < kBriskSlots) grow_magazine(*lane, c);
  }
  if (m.take == m.take_base) return refill_slow(*lane, c, requested);
  const bool is_drawn = !dry && !at_mark;
  const auto slots = static_cast<std::uint32_t>(m.take - m.take_base);
  if (is_drawn || passes_sample(*lane, c, slots)) [[likely]]
    return *(m.take = m.take - 1);
  const std::uint32_t mean_kib = sample_mean(*lane, c);
  return noted(pop_and_mark(*lane, c), c, requested, mean_kib);
}

void give_slow(void* p, const char* caller) {
  if (arena.contains(p) && arena.entry_of(p).is_free() && keep_last_large(p)) {
    return maintenance.notice_activity();
  }
  give_other_slow(p, caller);
}

void init_lane(Lane& lane) {
  arena.init_lane(lane.slabs, reinterpret_cast<std::uintptr_t>(&lane));
  lane.slabs.has_mosaics = true;
  init_magazines(lane);
}

}  // namespace ashlar
