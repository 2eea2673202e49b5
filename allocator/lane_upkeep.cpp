// SPDX-License-Identifier: MIT
// What is done for a lane now and then: flushing, trimming, tending while its owner sleeps,
// recovery when its owner is gone.
#include "lane_parts.h"

#include <algorithm>
#include <cstring>

namespace ashlar {

bool flush_lane(Lane& lane) {
  Busy busy(lane);
  bool any = lane.large.count != 0 || lane.remote_count != 0;
  for (std::uint32_t c = 0; c < kClassCount; c++) {
    any |= lane.magazine[c].count() != 0;
    flush_magazine(lane, ClassIndex{c});
  }
  while (lane.large.count != 0) flush_oldest_large(lane);
  flush_remote(lane);
  return arena.drain_inbox(lane.slabs) || any;
}

void flush_remote_frees(Lane& lane) {
  Busy busy(lane);
  flush_remote(lane);
}

void trim_lane(Lane& lane) {
  Busy busy(lane);
  for (std::uint32_t c = 0; c < kClassCount; c++) {
    Magazine& m = lane.magazine[c];
    if (!m.used) flush_magazine(lane, ClassIndex{c});
    m.used = m.missed = false;
  }
  while (!lane.large.used && lane.large.count != 0) flush_oldest_large(lane);
  lane.large.used = false;
  flush_remote(lane);
  arena.drain_inbox(lane.slabs);
}

void empty_magazines(Lane& lane) {
  Busy busy(lane);
  for (std::uint32_t c = 0; c < kClassCount; c++) flush_magazine(lane, ClassIndex{c});
  init_magazines(lane);
}

namespace {

// Blocks and slots that were on their way are lost.
void forget_blocks(Lane& lane) {
  lane.large.count = 0;
  lane.large.shifting = false;
  lane.remote_count = 0;
}

// A number that changes when the owner allocates or frees, but for a large block that it takes
// again.
std::uint64_t activity(const Lane& lane) {
  std::uint64_t sum = lane.slow_calls + lane.remote_count + lane.large.held().v;
  for (const Magazine& m : lane.magazine) {
    // Odd factors, so that a push here and a pop there do not cancel out.
    sum = sum * 31 + reinterpret_cast<std::uintptr_t>(static_cast<Stack>(m.take));
    sum = sum * 31 + reinterpret_cast<std::uintptr_t>(static_cast<Stack>(m.give));
  }
  return sum;
}

void* take_word(void*& word) {
  const std::atomic_ref shared(word);
  void* const slot = shared.load(std::memory_order_relaxed);  // ordered by the barrier
  shared.store(nullptr, std::memory_order_relaxed);
  return slot;
}

// Gives slots back that lie in [base, top) of a stack whose owner may be awake, and leaves null.
std::uint32_t reclaim(Lane& lane, ClassIndex c, Stack base, Stack top) {
  std::uint32_t count = 0;
  for (; base != top; base++) {
    void* const slot = take_word(*base);
    if (slot == nullptr) continue;
    give_slots(lane, c, &slot, 1);
    count++;
  }
  return count;
}

// Takes the slots out of a frozen lane's stacks. The owner goes on popping and pushing at the tops
// meanwhile, with plain stores. What it pushed stays where it is until a slow path, so `give` is
// ours up to its top. Of `take`, words are set to null first; then, after a barrier, all that the
// owner has read or is about to read lies at its top or above: what lies below is ours, and the
// rest is put back. (The bottom of a work-stealing deque, with the kernel's barrier for the
// thief's.) True if there was anything to take.
bool reclaim_magazine(Lane& lane, ClassIndex c) {
  constexpr std::ptrdiff_t kBlock = 256;
  Magazine& m = lane.magazine[c.v];
  std::uint32_t reclaimed = reclaim(lane, c, m.give_base, m.give.acquire());
  Stack at = m.take_base;
  while (at < m.take && *at == nullptr) at++;
  for (Stack top = m.take; top > at; top = m.take) {
    void* slots[kBlock];
    const std::ptrdiff_t count = std::min(top - at, kBlock);
    for (std::ptrdiff_t i = 0; i < count; i++) {
      slots[i] = take_word(at[i]);
    }
    const bool passed = os::barrier_in_all_threads();
    const Stack safe_end = passed ? static_cast<Stack>(m.take) : at;
    std::uint32_t ours = 0;
    for (std::ptrdiff_t i = 0; i < count; i++) {
      if (at + i < safe_end) {
        if (slots[i] != nullptr) slots[ours++] = slots[i];
      } else {
        std::atomic_ref(at[i]).store(slots[i], std::memory_order_relaxed);  // or the owner waits
      }
    }
    give_slots(lane, c, slots, ours);
    reclaimed += ours;
    if (at + count >= safe_end) break;
    at += count;
  }
  m.reclaimed = m.reclaimed + reclaimed;
  return reclaimed != 0;
}

bool holds_slots(Stack base, Stack top) {
  return base < top && std::any_of(base, top, [](const void* word) { return word != nullptr; });
}

// Purges the stacks of a frozen lane if they hold no slots. The owner may still be halfway through
// one push or pop. A push that has not seen the new end when the barrier is over has stored its
// slot by then, and a pop the new top, so that either slot lies at a top. Whether that is what lies
// there, or something older, its slab knows; if it may be, the word is kept elsewhere. A pop that
// comes too late for it reads null, and a push that had seen the old end leaves a null where its
// slot was: the owner's next slow path finds both restored.
void purge_stacks(Lane& lane) {
  for (Magazine& m : lane.magazine) m.give_end = m.give_base;  // the next push waits for us
  if (!os::barrier_in_all_threads()) return;
  lane.top_word_count = 0;
  for (const Magazine& m : lane.magazine) {
    // Both may move meanwhile, so each is read once; and a count may be one too low.
    const auto note_top = [&](Stack base, const Owned<Stack>& its_top) {
      const Stack top = its_top.acquire();
      if (holds_slots(base, top)) return false;
      void* const slot = std::atomic_ref(*top).load(std::memory_order_relaxed);  // see above
      if (arena.locate(slot).kind == Place::Kind::slot) {
        lane.top_words[lane.top_word_count++] = {&its_top, top, slot};
      }
      return true;
    };
    if (!note_top(m.take_base, m.take) || !note_top(m.give_base, m.give)) return;
  }
  std::atomic_signal_fence(std::memory_order_release);  // a fork sees the words, or full stacks
  lane.is_bare = true;
  // To the lane's end: stacks that were emptied have left theirs behind `stack_room`.
  os::purge(reinterpret_cast<std::byte*>(&lane) + sizeof(Lane),
            bytes_of(kLanePages) - sizeof(Lane));
}

template <class IsWanted>
void restore_if(Lane& lane, IsWanted&& is_wanted) {
  for (std::uint32_t i = 0; i < lane.top_word_count; i++) {
    const Lane::TopWord& word = lane.top_words[i];
    if (!is_wanted(word)) continue;
    std::atomic_ref(*word.at).store(word.slot, std::memory_order_relaxed);  // or the owner waits
  }
  std::atomic_signal_fence(std::memory_order_release);  // a fork sees them, or restores them again
  lane.is_bare = false;
}

}  // namespace

void restore_tops(Lane& lane) {
  restore_if(lane, [](const Lane::TopWord&) { return true; });
}

void restore_stacks(Lane& lane) {
  restore_if(lane, [](const Lane::TopWord& word) { return word.at < *word.top; });
}

bool tend_lane(Lane& lane, bool all) {
  bool changed = activity(lane) != lane.seen || lane.large.used;
  lane.large.used = false;
  if (changed && lane.is_bare) restore_tops(lane);
  if (all || !changed) {
    lane.slabs.is_idle = !changed;
    for (std::uint32_t c = 0; c < kClassCount; c++) {
      if (lane.magazine[c].count() != 0) changed |= reclaim_magazine(lane, ClassIndex{c});
    }
    changed |= lane.large.count != 0 || lane.remote_count != 0;
    while (lane.large.count != 0) flush_oldest_large(lane);
    flush_remote(lane);
    lane.slabs.is_idle = false;
    if (!lane.is_bare) purge_stacks(lane);
  }
  lane.seen = activity(lane);
  return arena.drain_inbox(lane.slabs) || changed;
}

void recover_frozen(Lane& lane) {
  if (lane.is_bare) restore_tops(lane);
  // Slots that were on their way are lost. The words stay where they are: this may be in a signal
  // handler that interrupted a hit path.
  for (Magazine& m : lane.magazine) {
    const auto nulls = [](Stack base, Stack top) {
      return static_cast<std::uint32_t>(std::count(base, std::max(base, top), nullptr));
    };
    m.reclaimed = nulls(m.take_base, m.take) + nulls(m.give_base, m.give);
    m.next_sample = NextSample::none;  // a mark is counted with the others
  }
  forget_blocks(lane);
  arena.recover_lane(lane.slabs);
}

void Entered::wait_slow(Lane& lane, OwnerState state) {
  do {
    lane.owner.store(OwnerState::outside, std::memory_order_release);  // pairs with: Frozen
    if (lane.frozen.lock()) recover_frozen(lane);
    lane.frozen.unlock();
    lane.owner.store(state, std::memory_order_relaxed);
    std::atomic_signal_fence(std::memory_order_seq_cst);
  } while (lane.frozen.is_held());
}

void recover_magazines(Lane& lane) {
  if (lane.is_bare) restore_tops(lane);
  const auto rescue = [&](ClassIndex c, Stack base, Stack top) {
    for (; base < top; base++) {
      // The owner may have died between giving a slot back and taking it off the stack.
      if (arena.locate(*base).kind == Place::Kind::slot) give_slots(lane, c, base, 1);
    }
  };
  if (lane.owner != OwnerState::changing) {
    for (std::uint32_t c = 0; c < kClassCount; c++) {
      const Magazine& m = lane.magazine[c];
      rescue(ClassIndex{c}, m.take_base, m.take);
      rescue(ClassIndex{c}, m.give_base, m.give);
    }
    while (!lane.large.shifting && lane.large.count != 0) flush_oldest_large(lane);
    flush_remote(lane);
  }
  lane.owner = OwnerState::outside;
  forget_blocks(lane);
  init_magazines(lane);
}

const char* check_invariants(const Lane& lane) {
  const auto word_at = [&](Stack s) {
    for (std::uint32_t i = 0; lane.is_bare && i < lane.top_word_count; i++) {
      if (lane.top_words[i].at == s) return lane.top_words[i].slot;
    }
    return *s;
  };
  for (std::uint32_t c = 0; c < kClassCount; c++) {
    const Magazine& m = lane.magazine[c];
    const auto in_bounds = [&](Stack base, Stack top) {
      return base[-1] == nullptr && top >= base && top - base <= m.capacity;
    };
    if (!in_bounds(m.take_base, m.take) || !in_bounds(m.give_base, m.give)) {
      return "magazine 1: a stack leaves its bounds";
    }
    const char* broken = nullptr;
    const auto each = [&](auto&& visit) {
      for (Stack s = m.take_base; s != m.take; s++) visit(word_at(s));
      for (Stack s = m.give_base; s != m.give; s++) visit(word_at(s));
    };
    std::uint32_t reclaimed = 0;
    each([&](void* slot) {
      if (slot == nullptr) {
        reclaimed++;
        return;
      }
      const Place place = arena.locate(slot);
      if (place.kind != Place::Kind::slot || place.begin != slot || place.size_class.v != c ||
          arena.entry_of(slot).tag() != lane.slabs.tag) {
        broken = "magazine 2: not a taken slot of this class and lane";
      }
      std::uint32_t seen = 0;
      each([&](void* other) { seen += other == slot; });
      if (seen != 1) broken = "magazine 3: a slot is there twice";
    });
    if (broken != nullptr) return broken;
    if (reclaimed != m.reclaimed + m.has_mark())
      return "magazine 4: reclaimed slots are miscounted";
  }
  return nullptr;
}

}  // namespace ashlar
