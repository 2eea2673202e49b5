// SPDX-License-Identifier: MIT
// L2 · slab: one block cut into equal slots.
//
// What:    at rest, the free slots of a slab are set bits in a bitmap that lies apart from them.
//          Nothing is ever written into a free slot.
// How:     the owner takes slots by clearing bits, lowest first, and gives them back by setting
//          them. Any other thread frees by setting a bit in a second bitmap, `remote`, with one
//          atomic step for all slots of a word; the owner moves those bits over when it runs dry.
//
//            owner's line   used, class, links  ┐ never in the same cache line, so that remote
//            shared line    pending, owner      ┘ frees do not slow the owner down
//            free    0010 1100 …                  1 = free and at rest
//            remote  0100 0000 …                  1 = freed by another thread, not yet taken over
//
// Invariants (check_invariants() tests these by number):
//   1  used = capacity − set bits of `free` below capacity; those above are always set, so that
//      nobody can free what is not a slot; they come last, so that nobody is handed one
//   2  no slot is set in `free` and `remote` at once
//   3  no word below `hint` has a set bit in `free`
//   4  a hole is an empty page
// Threads: take, give and drain: the owner. give_remote: any.
// Position: holds no addresses; `base` is where this process sees the block.
#pragma once

#include <atomic>

#include "bits.h"
#include "check.h"
#include "owned.h"
#include "size_class.h"

namespace ashlar {

struct alignas(2 * kCacheLineBytes) SlabDescriptor {
  // The owner's line.
  Owned<std::uint32_t> used;  // owner → reports: slots handed out, in magazines or in `remote`
  Owned<std::uint32_t> next;  // owner: unit of the next slab in the same list
  Owned<std::uint32_t> prev;  // owner
  Owned<std::uint32_t> hint;  // owner: word to search from
  Owned<std::uint8_t> size_class;  // const while the slab lives
  Owned<std::uint8_t> list;        // owner: which list of its class holds it
  Owned<bool> was_full;            // owner: once; before, its free slots are memory never touched
  Owned<bool> taken_from;          // owner: since the last look for empty pages
  std::int32_t least_used;         // owner: below this its list is another
  Owned<std::uint64_t> holes;  // owner → reports: pages given back to the kernel, bit per page

  // The shared line. It belongs to the unit, not to the slab: a late notification may arrive
  // when the slab is gone, and must find the fields as they were.
  // The arena's epoch: in an inbox, or about to be. Anything else: not.
  alignas(kCacheLineBytes) std::atomic<std::uint32_t> pending;  // atomic: any → owner
  std::atomic<std::uint32_t> next_pending;  // atomic: who set pending → who empties the inbox
  std::atomic<std::uint32_t> owner;         // atomic: creator → who frees remotely
  std::atomic<std::uint32_t> objects;       // atomic: any → owner; in a mosaic
  std::atomic<bool> gained;  // atomic: any → owner; a mosaic's gaps grew since it looked
};

using BitmapWord = std::atomic<std::uint64_t>;

// What give() and give_remote() found.
enum class Give : std::uint8_t { done, double_free };

// A view of one slab; cheap to make, holds nothing.
class Slab {
 public:
  Slab(SlabDescriptor& descriptor, BitmapWord* free, BitmapWord* remote, std::byte* base,
       ClassIndex c)
      : descriptor_(descriptor), free_(free), remote_(remote), base_(base), class_(size_class(c)) {}

  SlabDescriptor& descriptor() const { return descriptor_; }
  const SizeClass& size_class_info() const { return class_; }
  std::byte* base() const { return base_; }
  const BitmapWord* remote_words() const { return remote_; }
  bool is_full() const { return descriptor_.used == class_.capacity; }
  bool is_empty() const { return descriptor_.used == 0; }

  // A new slab, all slots free.
  void create(ClassIndex c, std::uint32_t owner);

  // Takes up to `want` slots and writes them downwards from `end`, the lowest address last.
  // Returns how many.
  std::uint32_t take(void** end, std::uint32_t want);

  // Sets `bits`, slots that the owner gives back, in word `w`; `used` is left to the caller.
  Give give(std::uint32_t w, std::uint64_t bits);
  // The same from any other thread; the caller then sees to it that the owner is told.
  Give give_remote(std::uint32_t w, std::uint64_t bits);
  // Moves what others freed to `free`. Returns the number of slots.
  std::uint32_t drain_remote();
  // Calls give(slot) for what others freed, and forgets it. True if there was anything.
  template <class Visit>
  bool for_each_remote(Visit&& give) {
    bool any = false;
    for (std::uint32_t w = 0; w < class_.words; w++) {
      std::uint64_t bits = remote_[w].exchange(0);  // pairs with: give_remote
      for (; bits != 0; bits &= bits - 1) {
        give(base_ + Bytes{w * 64 + lowest_bit(bits)} * class_.slot_bytes);
        any = true;
      }
    }
    return any;
  }

  bool is_free(std::uint32_t slot) const {
    return (free_[slot / 64].load(std::memory_order_relaxed) >> slot % 64 & 1) != 0;  // a hint
  }
  // Pages of which every slot is free and at rest, bit per page.
  std::uint64_t empty_pages() const;

  // Says on stderr that the slot was freed twice (or is none), and aborts.
  [[noreturn, gnu::cold]] void report_double_free(std::uint32_t slot) const;
  // Counts what the bitmap says into `used`, after a crash or fork in the middle of a change.
  void recount();

  const char* check_invariants() const;

 private:
  // Bits of word `w` that stand for slots.
  std::uint64_t slots_of_word(std::uint32_t w) const {
    return bit_range(0, w + 1 < class_.words ? 64 : class_.capacity - w * 64);
  }
  std::uint32_t free_slots() const;

  SlabDescriptor& descriptor_;
  BitmapWord* free_;    // class_.words words; atomic: owner → reports, checks for double frees
  BitmapWord* remote_;  // class_.words words; atomic: any → owner
  std::byte* base_;
  const SizeClass& class_;
};

// What Slab::give does, for who has no more of a slab than this.
inline Give set_free(SlabDescriptor& descriptor, BitmapWord& word, std::uint32_t w,
                     std::uint64_t bits) {
  const std::uint64_t old = word.load(std::memory_order_relaxed);  // own writes
  if ((old & bits) != 0) return Give::double_free;
  word.store(old | bits, std::memory_order_relaxed);  // read by others as a hint only
  if (w < descriptor.hint) descriptor.hint = w;
  return Give::done;
}

inline Give Slab::give(std::uint32_t w, std::uint64_t bits) {
  return set_free(descriptor_, free_[w], w, bits);
}

}  // namespace ashlar
