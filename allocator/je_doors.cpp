// SPDX-License-Identifier: MIT
// L6 · the doors of libashlar_je.a: jemalloc's whole interface with the prefix je_, beside the C
// library's malloc. For programs that bring a jemalloc of their own, as Redis does; the header
// is ashlar/je/jemalloc/jemalloc.h.
#include <cerrno>

#include "door.h"
#include "jemalloc.h"
#include "objects.h"

using namespace ashlar;

ASHLAR_DOOR int je_mallctl(const char* name, void* output, std::size_t* output_bytes, void* input,
                           std::size_t input_bytes) {
  return jemalloc::mallctl(name, {output, output_bytes, input, input_bytes});
}

ASHLAR_DOOR int je_mallctlnametomib(const char* name, std::size_t* parts, std::size_t* length) {
  return jemalloc::mallctlnametomib(name, parts, length);
}

ASHLAR_DOOR int je_mallctlbymib(const std::size_t* parts, std::size_t length, void* output,
                                std::size_t* output_bytes, void* input, std::size_t input_bytes) {
  return jemalloc::mallctlbymib(parts, length, {output, output_bytes, input, input_bytes});
}

ASHLAR_DOOR void je_malloc_stats_print(void (*write)(void*, const char*), void* context,
                                       const char* settings) {
  jemalloc::malloc_stats_print(write, context, settings);
}

ASHLAR_DOOR std::size_t je_nallocx(std::size_t bytes, int flags) {
  return jemalloc::nallocx(bytes, flags);
}
ASHLAR_DOOR void* je_mallocx(std::size_t bytes, int flags) {
  return jemalloc::mallocx(bytes, flags);
}
ASHLAR_DOOR void* je_rallocx(void* p, std::size_t bytes, int flags) {
  return jemalloc::rallocx(p, bytes, flags);
}
ASHLAR_DOOR std::size_t je_xallocx(void* p, std::size_t bytes, std::size_t extra, int flags) {
  return jemalloc::xallocx(p, bytes, extra, flags);
}
ASHLAR_DOOR std::size_t je_sallocx(const void* p, int) { return usable_bytes(p, "sallocx"); }
ASHLAR_DOOR void je_dallocx(void* p, int flags) { jemalloc::dallocx(p, flags, "dallocx"); }
// As with free_sized, the size is not believed.
ASHLAR_DOOR void je_sdallocx(void* p, std::size_t, int flags) {
  jemalloc::dallocx(p, flags, "sdallocx");
}

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
