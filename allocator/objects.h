// SPDX-License-Identifier: MIT
// L5 · objects: what malloc and its family do, under whatever name a door has.
//
// What:    turns sizes into size classes or pages and checks what callers may get wrong. What
//          the standard leaves open is done as glibc does it.
// Errors:  null and ENOMEM. Corruption ends the program with one line.
// Threads: any; in signal handlers as far as glibc's malloc goes there.
#pragma once

#include <cstddef>
#include <cstring>

#include "heap.h"
#include "thread_cache.h"

namespace ashlar {

inline constexpr Bytes kMostObjectBytes = PTRDIFF_MAX;

// Null, and errno.
[[gnu::cold, gnu::noinline]] void* out_of_memory();

inline void* allocate(Bytes bytes) {
  if (bytes <= kMaxSlotBytes) [[likely]]
    return take_slot(bytes);
  return heap.take_large(bytes);
}

// Slots are multiples of 16 bytes, so what is small is cleared by two stores that may overlap.
inline void clear_slot(void* slot, Bytes bytes) {
  const auto clear_ends = [=](Bytes part) {
    auto* const first = static_cast<std::byte*>(slot);
    std::memset(first, 0, part);
    std::memset(first + align_up(bytes, kMinAlignment) - part, 0, part);
  };
  if (bytes == 0) return;
  if (bytes <= 32) return clear_ends(16);
  if (bytes <= 64) return clear_ends(32);
  if (bytes <= 128) return clear_ends(64);
  std::memset(slot, 0, bytes);
}

inline void* allocate_zeroed(Bytes bytes) {
  if (bytes <= kMaxSlotBytes) [[likely]] {
    void* const slot = take_slot(bytes);
    if (slot != nullptr) [[likely]]
      clear_slot(slot, bytes);
    return slot;
  }
  bool zero = false;
  void* const p = heap.take_large(bytes, kPageBytes, zero);
  if (p != nullptr && !zero) std::memset(p, 0, bytes);
  return p;
}

// `count` times as many bytes.
inline void* allocate_zeroed(std::size_t count, Bytes bytes) {
  Bytes total = 0;
  if (__builtin_mul_overflow(count, bytes, &total)) return out_of_memory();
  return allocate_zeroed(total);
}

// `alignment` is a power of two.
void* allocate_aligned(Bytes alignment, Bytes bytes);
// The same from the fullest slabs, past the magazines; see Compactor.
void* allocate_dense(Bytes alignment, Bytes bytes);
// realloc(), with null and 0 as in glibc.
void* reallocate(void* p, Bytes bytes);
// posix_memalign(): 0, EINVAL or ENOMEM.
int allocate_aligned_posix(void** result, Bytes alignment, Bytes bytes);
// The bytes of an object that can be used, 0 for null; aborts if p does not point to one.
Bytes usable_bytes(const void* p, const char* caller);

}  // namespace ashlar
