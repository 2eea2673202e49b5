// SPDX-License-Identifier: MIT
#include "slab.h"

namespace ashlar {

std::uint32_t Slab::take(void** end, std::uint32_t want) {
  const std::uint32_t slot_bytes = class_.slot_bytes;
  const std::uint32_t available = class_.capacity - descriptor_.used;
  const std::uint32_t count = want < available ? want : available;
  std::uint32_t left = count;
  std::uint32_t w = descriptor_.hint;
  descriptor_.taken_from = true;
  while (left != 0) {
    ASHLAR_ASSERT(w < class_.words);
    std::uint64_t bits = free_[w].load(std::memory_order_relaxed);  // own writes
    std::byte* const word_base = base_ + std::size_t{w} * 64 * slot_bytes;
    if (bits == ~std::uint64_t{0} && left >= 64) {
      std::byte* slot = word_base;
      for (std::uint32_t i = 0; i < 64; i++, slot += slot_bytes) *--end = slot;
      left -= 64;
      bits = 0;
    } else {
      for (; bits != 0 && left != 0; bits &= bits - 1, left--) {
        *--end = word_base + std::size_t{lowest_bit(bits)} * slot_bytes;
      }
    }
    free_[w].store(bits, std::memory_order_relaxed);  // read by others as a hint only
    if (bits == 0) w++;
  }
  descriptor_.hint = w;
  descriptor_.used = descriptor_.used + count;
  if (is_full()) descriptor_.was_full = true;
  if (descriptor_.holes != 0 && count != 0) [[unlikely]] {
    // Lowest slots first: up to the last one, no page is empty now.
    const auto last_byte = static_cast<std::byte*>(*end) + slot_bytes - 1 - base_;
    const auto last_page =
        static_cast<unsigned>(last_byte / static_cast<std::ptrdiff_t>(kPageBytes));
    descriptor_.holes = descriptor_.holes & ~bit_range(0, last_page + 1);
  }
  return count;
}

std::uint64_t Slab::empty_pages() const {
  if (is_full()) return 0;
  std::uint64_t empty = 0;
  const std::uint32_t end = class_.capacity * class_.slot_bytes;
  for (std::uint32_t page = 0; page * kPageBytes < end; page++) {
    const auto begin = static_cast<std::uint32_t>(page * kPageBytes);
    const auto last =
        static_cast<std::uint32_t>(begin + kPageBytes < end ? begin + kPageBytes : end) - 1;
    const std::uint32_t first_slot = slot_index(begin, class_.magic);
    const std::uint32_t last_slot = slot_index(last, class_.magic);
    bool all = true;
    for_each_word(first_slot, last_slot - first_slot + 1, [&](std::uint32_t w, std::uint64_t mask) {
      all &= (free_[w].load(std::memory_order_relaxed) & mask) == mask;  // own writes
    });
    if (all) empty |= std::uint64_t{1} << page;
  }
  return empty;
}

Give Slab::give_remote(std::uint32_t w, std::uint64_t bits) {
  // A slot that its owner holds to be free cannot be freed again. A live object's bit is clear
  // for as long as it lives, so what is read here must be read before it is freed below.
  const std::uint64_t at_rest = free_[w].load(std::memory_order_relaxed);
  // pairs with: drain_remote. seq_cst, see Arena::notify_owner.
  const std::uint64_t old = remote_[w].fetch_or(bits);
  return ((old | at_rest) & bits) == 0 ? Give::done : Give::double_free;
}

std::uint32_t Slab::drain_remote() {
  std::uint32_t drained = 0;
  for (std::uint32_t w = 0; w < class_.words; w++) {
    if (remote_[w].load() == 0) continue;               // pairs with: give_remote
    const std::uint64_t bits = remote_[w].exchange(0);  // pairs with: give_remote
    // The owner gave one back in the meantime.
    if (give(w, bits) == Give::double_free) {
      report_double_free(w * 64 + lowest_bit(bits & free_[w].load(std::memory_order_relaxed)));
    }
    drained += static_cast<std::uint32_t>(std::popcount(bits));
  }
  descriptor_.used = descriptor_.used - drained;
  return drained;
}

void Slab::report_double_free(std::uint32_t slot) const {
  Text text;
  text.put(slot < class_.capacity ? "free(): double free of " : "free(): invalid pointer ")
      .hex(reinterpret_cast<std::uintptr_t>(base_) + Bytes{slot} * class_.slot_bytes);
  if (slot < class_.capacity) text.put(" (class ").decimal(class_.slot_bytes).put(")");
  fatal(text);
}

void Slab::create(ClassIndex c, std::uint32_t owner) {
  // `remote` is zero: it was when the chunk was new, and a slab is given up when all is taken over.
  for (std::uint32_t w = 0; w < class_.words; w++) {
    ASHLAR_ASSERT(remote_[w].load() == 0);
    free_[w].store(~std::uint64_t{0}, std::memory_order_relaxed);  // published with the unit entry
  }
  descriptor_.used = 0;
  descriptor_.hint = 0;
  descriptor_.next = kNone;
  descriptor_.prev = kNone;
  descriptor_.was_full = false;
  descriptor_.taken_from = true;
  descriptor_.holes = 0;
  descriptor_.size_class = static_cast<std::uint8_t>(c.v);
  descriptor_.owner.store(owner, std::memory_order_relaxed);  // published with the unit entry
}

std::uint32_t Slab::free_slots() const {
  std::uint32_t n = 0;
  for (std::uint32_t w = 0; w < class_.words; w++) {
    const std::uint64_t bits = free_[w].load(std::memory_order_relaxed);  // own writes, or a hint
    n += static_cast<std::uint32_t>(std::popcount(bits));
  }
  return n - (class_.words * 64 - class_.capacity);
}

void Slab::recount() {
  descriptor_.used = class_.capacity - free_slots();
  descriptor_.hint = 0;
  descriptor_.holes = descriptor_.holes & empty_pages();
}

const char* Slab::check_invariants() const {
  for (std::uint32_t w = 0; w < class_.words; w++) {
    const std::uint64_t free = free_[w].load();
    const std::uint64_t remote = remote_[w].load();
    if ((~free & ~slots_of_word(w)) != 0) return "slab 1: a bit without a slot is clear";
    if ((free & remote) != 0) return "slab 2: a slot is free and freed";
    if (w < descriptor_.hint && (free & slots_of_word(w)) != 0)
      return "slab 3: the hint skips a free slot";
  }
  if (descriptor_.used != class_.capacity - free_slots()) return "slab 1: the count is wrong";
  if ((descriptor_.holes & ~empty_pages()) != 0) return "slab 4: a hole is in use";
  return nullptr;
}

}  // namespace ashlar
