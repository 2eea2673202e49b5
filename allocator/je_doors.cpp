// SPDX-License-Identifier: MIT
// L6 · the malloc family of libashlar_je.a, with the prefix je_ beside the C library's malloc. For
// programs that bring a jemalloc of their own, as Redis does; the header is
// ashlar/je/jemalloc/jemalloc.h, and jemalloc_doors has the rest of it.
#include <cerrno>

#include "door.h"
#include "jemalloc.h"
#include "objects.h"

using namespace ashlar;

ASHLAR_DOOR void* je_malloc(std::size_t bytes) { return allocate(bytes); }
ASHLAR_DOOR void* je_calloc(std::size_t count, std::size_t bytes) {
  return allocate_zeroed(count, bytes);
}
ASHLAR_DOOR void* je_realloc(void* p, std::size_t bytes) { return reallocate(p, bytes); }
ASHLAR_DOOR void je_free(void* p) { give_slot(p); }
ASHLAR_DOOR void* je_aligned_alloc(std::size_t alignment, std::size_t bytes) {
  if (is_power_of_two(alignment)) return allocate_aligned(alignment, bytes);
  errno = EINVAL;
  return nullptr;
}
ASHLAR_DOOR void* je_memalign(std::size_t alignment, std::size_t bytes) {
  return je_aligned_alloc(alignment, bytes);
}
ASHLAR_DOOR int je_posix_memalign(void** result, std::size_t alignment, std::size_t bytes) {
  return allocate_aligned_posix(result, alignment, bytes);
}
ASHLAR_DOOR std::size_t je_malloc_usable_size(const void* p) {
  return usable_bytes(p, "malloc_usable_size");
}
ASHLAR_DOOR int je_get_defrag_hint(void* p) { return jemalloc::get_defrag_hint(p); }
