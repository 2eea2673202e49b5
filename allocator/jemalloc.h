// SPDX-License-Identifier: MIT
// L5 · jemalloc: its own interface, for programs that were built for it.
//
// What:    mallctl and its like (mallctl has the names), the mallocx family, malloc_stats_print,
//          and the hint that Redis's jemalloc has. jemalloc_doors leads here, in the library
//          and, with a prefix, in libashlar_je.a.
// How:     flags are 6 bits of the alignment's logarithm, 0x40 for zeroed memory, and 12 bits that
//          name a cache: 0 is the thread's, 1 is none (MALLOCX_TCACHE_NONE). Without a cache slots
//          come from the fullest slabs and go back to their slab at once; a program that moves its
//          objects by itself needs both.
// Errors:  as in objects.
// Threads: any; not for signal handlers.
#pragma once

#include <cstddef>

#include "mallctl.h"
#include "units.h"

namespace ashlar::jemalloc {

int mallctl(const char* name, const Query& query);
int mallctlnametomib(const char* name, std::size_t* parts, std::size_t* length);
int mallctlbymib(const std::size_t* parts, std::size_t length, const Query& query);
// "J" in `settings` asks for JSON. Other letters of jemalloc's leave out parts that are not here.
void malloc_stats_print(void (*write)(void*, const char*), void* context, const char* settings);

// What an allocation of that size and alignment would hold, or 0: none is that large.
Bytes nallocx(Bytes bytes, int flags);
void* mallocx(Bytes bytes, int flags);
void* rallocx(void* p, Bytes bytes, int flags);
// In place or not at all; the bytes that p has then.
Bytes xallocx(void* p, Bytes bytes, Bytes extra, int flags);
void dallocx(void* p, int flags, const char* caller);

// Not 0: moving p is worth it.
int get_defrag_hint(const void* p);

}  // namespace ashlar::jemalloc
