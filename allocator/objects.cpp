// SPDX-License-Identifier: MIT
#include "objects.h"

#include <cerrno>

#include "compact.h"
#include "sampler.h"

namespace ashlar {

namespace {

// kClassCount: pages of its own.
ClassIndex class_of(Bytes alignment, Bytes bytes) {
  return alignment <= kPageBytes ? class_for_aligned(bytes, alignment) : ClassIndex{kClassCount};
}

// A gap in a mosaic may be less aligned than a slot in a slab.
void* aligned_slot(void* p, ClassIndex c, Bytes alignment) {
  if (reinterpret_cast<std::uintptr_t>(p) % alignment == 0) [[likely]]
    return p;
  give_slot(p);
  return heap.take_shared(c);
}

// A slot that is at hand and so aligned, or null.
inline void* pop_aligned(Bytes alignment, Bytes bytes) {
  if (alignment > kPageBytes || bytes > kMaxSlotBytes) [[unlikely]]
    return nullptr;
  const Bytes rounded = bytes_for_aligned(bytes, alignment);
  if (rounded > kMaxSlotBytes) [[unlikely]]
    return nullptr;
  void* const p = take_at_hand(rounded);
  if (reinterpret_cast<std::uintptr_t>(p) % alignment == 0) [[likely]]
    return p;
  give_slot(p);
  return nullptr;
}

[[gnu::noinline]] int allocate_aligned_slow(void** result, Bytes alignment, Bytes bytes) {
  const int saved_errno = errno;
  void* const p = allocate_aligned(alignment, bytes);
  errno = saved_errno;
  if (p == nullptr) return ENOMEM;
  *result = p;
  return 0;
}

// p is in the arena, and in no slab.
bool is_large(const void* p) {
  return reinterpret_cast<std::uintptr_t>(p) % kPageBytes == 0 &&
         arena.buddy().is_large(arena.page_of(p));
}

// Neither is null.
void* resize(void* p, Bytes bytes) {
  const Bytes usable = usable_bytes(p, "realloc");
  const UnitEntry entry = arena.entry_of(p);
  const bool was_large = entry.is_free() && is_large(p);
  if (!was_large && usable <= kMaxSlotBytes) {
    // Staying is free. Shrinking by less than half is not worth a copy.
    if (bytes <= usable && bytes > usable / 2) return p;
    if (bytes <= kMaxSlotBytes && size_class(class_for(bytes)).slot_bytes == usable) return p;
  } else if (was_large && bytes > kMaxSlotBytes && bytes <= kMostObjectBytes) {
    if (void* const resized = heap.resize_large(p, usable, bytes)) return resized;
  }
  const int saved_errno = errno;
  void* const to = allocate(bytes);
  if (to == nullptr) {
    if (bytes > usable) return nullptr;
    errno = saved_errno;
    return p;  // it fits where it is
  }
  std::memcpy(to, p, bytes < usable ? bytes : usable);
  give_slot(p, "realloc");
  return to;
}

// Most steps of an object that grows little by little.
inline bool keeps_its_slot(const void* p, Bytes bytes) {
  if (bytes - 1 >= kMaxSlotBytes || !arena.contains(p)) return false;
  const UnitEntry entry = arena.entry_of(p);
  const ClassIndex c = class_for(bytes);
  return !entry.is_free() && entry.size_class() == c && slot_bytes_at(p, entry) != 0;
}

[[gnu::noinline]] void* reallocate_slow(void* p, Bytes bytes) {
  if (p == nullptr) return allocate(bytes);
  if (bytes != 0) return resize(p, bytes);
  give_slot(p, "realloc");
  return nullptr;
}

}  // namespace

void* out_of_memory() {
  errno = ENOMEM;
  return nullptr;
}

void* allocate_aligned(Bytes alignment, Bytes bytes) {
  if (alignment <= kMinAlignment) return allocate(bytes);
  const ClassIndex c = class_of(alignment, bytes);
  if (c.v < kClassCount) return aligned_slot(take_slot(c, bytes), c, alignment);
  if (bytes > kMostObjectBytes) return out_of_memory();
  bool zero = false;
  return heap.take_large(bytes, alignment, zero);
}

void* allocate_dense(Bytes alignment, Bytes bytes) {
  const ClassIndex c = class_of(alignment, bytes);
  if (c.v == kClassCount) return allocate_aligned(alignment, bytes);
  return aligned_slot(compactor.take(c, bytes), c, alignment);
}

int allocate_aligned_posix(void** result, Bytes alignment, Bytes bytes) {
  if (!is_power_of_two(alignment) || alignment % sizeof(void*) != 0) return EINVAL;
  if (void* const p = pop_aligned(alignment, bytes)) [[likely]] {
    *result = p;
    return 0;
  }
  return allocate_aligned_slow(result, alignment, bytes);
}

void* reallocate(void* p, Bytes bytes) {
  return keeps_its_slot(p, bytes) ? p : reallocate_slow(p, bytes);
}

Bytes usable_bytes(const void* p, const char* caller) {
  if (p == nullptr) return 0;
  if (arena.contains(p)) [[likely]] {
    const UnitEntry entry = arena.entry_of(p);
    if (entry.has_slots()) {
      if (const Bytes bytes = slot_bytes_at(p, entry)) return bytes;
    } else if (is_large(p)) {
      return bytes_of(arena.buddy().pages_at(arena.page_of(p)));
    } else if (Sampler::is_on()) {
      if (const Bytes bytes = sampler.slot_bytes_of(p)) return bytes;
    }
  }
  reject(p, caller);
}

}  // namespace ashlar
