// SPDX-License-Identifier: MIT
// L6 · the doors of jemalloc's own interface; jemalloc has the rooms. Compiled twice: the library
// has them under their own names, libashlar_je.a with the prefix je_.
#include "door.h"
#include "jemalloc.h"
#include "objects.h"

#ifdef ASHLAR_JE
#define NAMED(name) je_##name
#else
#define NAMED(name) name
#endif

using namespace ashlar;

ASHLAR_DOOR int NAMED(mallctl)(const char* name, void* output, std::size_t* output_bytes,
                               void* input, std::size_t input_bytes) {
  return jemalloc::mallctl(name, {output, output_bytes, input, input_bytes});
}

ASHLAR_DOOR int NAMED(mallctlnametomib)(const char* name, std::size_t* parts, std::size_t* length) {
  return jemalloc::mallctlnametomib(name, parts, length);
}

ASHLAR_DOOR int NAMED(mallctlbymib)(const std::size_t* parts, std::size_t length, void* output,
                                    std::size_t* output_bytes, void* input,
                                    std::size_t input_bytes) {
  return jemalloc::mallctlbymib(parts, length, {output, output_bytes, input, input_bytes});
}

ASHLAR_DOOR void NAMED(malloc_stats_print)(void (*write)(void*, const char*), void* context,
                                           const char* settings) {
  jemalloc::malloc_stats_print(write, context, settings);
}

ASHLAR_DOOR std::size_t NAMED(nallocx)(std::size_t bytes, int flags) {
  return jemalloc::nallocx(bytes, flags);
}
ASHLAR_DOOR void* NAMED(mallocx)(std::size_t bytes, int flags) {
  return jemalloc::mallocx(bytes, flags);
}
ASHLAR_DOOR void* NAMED(rallocx)(void* p, std::size_t bytes, int flags) {
  return jemalloc::rallocx(p, bytes, flags);
}
ASHLAR_DOOR std::size_t NAMED(xallocx)(void* p, std::size_t bytes, std::size_t extra, int flags) {
  return jemalloc::xallocx(p, bytes, extra, flags);
}
ASHLAR_DOOR std::size_t NAMED(sallocx)(const void* p, int) { return usable_bytes(p, "sallocx"); }
ASHLAR_DOOR void NAMED(dallocx)(void* p, int flags) { jemalloc::dallocx(p, flags, "dallocx"); }
// As with free_sized, the size is not believed.
ASHLAR_DOOR void NAMED(sdallocx)(void* p, std::size_t, int flags) {
  jemalloc::dallocx(p, flags, "sdallocx");
}
