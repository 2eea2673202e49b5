// SPDX-License-Identifier: MIT
// L6 · the doors to the heaps that programs make (ashlar.h); program_heap has the rooms.
#include <bit>
#include <cerrno>

#include "door.h"
#include "program_heap.h"

using namespace ashlar;

ASHLAR_DOOR ashlar_heap* ashlar_heap_create(const ashlar_heap_policy* policy) {
  ProgramHeap* const heap =
      program_heaps.create(policy != nullptr ? *policy : ashlar_heap_policy{});
  return heap != nullptr ? heap->handle() : nullptr;
}

ASHLAR_DOOR ashlar_heap* ashlar_heap_create_in(void* memory, size_t bytes) {
  ProgramHeap* const heap = program_heaps.create_in(static_cast<std::byte*>(memory), bytes);
  return heap != nullptr ? heap->handle() : nullptr;
}

ASHLAR_DOOR void ashlar_heap_destroy(ashlar_heap* heap) { program_heaps.destroy(heap); }

ASHLAR_DOOR void* ashlar_heap_malloc(ashlar_heap* heap, size_t bytes) {
  return ProgramHeap::of(heap, "ashlar_heap_malloc").take(bytes, kMinAlignment);
}

ASHLAR_DOOR void* ashlar_heap_memalign(ashlar_heap* heap, size_t alignment, size_t bytes) {
  ProgramHeap& h = ProgramHeap::of(heap, "ashlar_heap_memalign");
  if (alignment > kMostBlockBytes) {
    errno = EINVAL;
    return nullptr;
  }
  const Bytes power = std::bit_ceil(alignment);
  return h.take(bytes, power > kMinAlignment ? power : kMinAlignment);
}

ASHLAR_DOOR void* ashlar_heap_realloc(ashlar_heap* heap, void* object, size_t bytes) {
  ProgramHeap& h = ProgramHeap::of(heap, "ashlar_heap_realloc");
  if (object == nullptr) return h.take(bytes, kMinAlignment);
  if (bytes != 0) return h.resize(object, bytes, "ashlar_heap_realloc");
  h.give(object, "ashlar_heap_realloc");
  return nullptr;
}

ASHLAR_DOOR void ashlar_heap_free(ashlar_heap* heap, void* object) {
  ProgramHeap& h = ProgramHeap::of(heap, "ashlar_heap_free");
  if (object != nullptr) h.give(object, "ashlar_heap_free");
}

ASHLAR_DOOR size_t ashlar_heap_usable_size(ashlar_heap* heap, const void* object) {
  const ProgramHeap& h = ProgramHeap::of(heap, "ashlar_heap_usable_size");
  return object == nullptr ? 0 : h.usable_bytes(object, "ashlar_heap_usable_size");
}

ASHLAR_DOOR int ashlar_heap_get_stats(ashlar_heap* heap, ashlar_heap_stats* stats) {
  ProgramHeap::of(heap, "ashlar_heap_get_stats").count(*stats);
  return 0;
}
