/* SPDX-License-Identifier: MIT
 *
 * jemalloc's interface on Ashlar, with the prefix je_, for programs that bring a jemalloc of their
 * own. Compile with -I.../include/ashlar/je and link libashlar_je.a; the C library's malloc stays
 * beside it. What the functions do is said in jemalloc's manual; docs/compaction.md says what is
 * different.
 */
#ifndef ASHLAR_JE_JEMALLOC_H
#define ASHLAR_JE_JEMALLOC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The release of jemalloc whose interface this is. */
#define JEMALLOC_VERSION "5.3.0-0-ashlar"
#define JEMALLOC_VERSION_MAJOR 5
#define JEMALLOC_VERSION_MINOR 3
#define JEMALLOC_VERSION_BUGFIX 0
#define JEMALLOC_VERSION_NREV 0
#define JEMALLOC_VERSION_GID "ashlar"

/* je_get_defrag_hint() is there. */
#define JEMALLOC_FRAG_HINT

/* Flags. Arenas, and caches other than the thread's and none, are taken and mean nothing here. */
#define MALLOCX_LG_ALIGN(la) ((int)(la))
#define MALLOCX_ALIGN(a) ((int)__builtin_ctzll((unsigned long long)(a)))
#define MALLOCX_ZERO ((int)0x40)
#define MALLOCX_TCACHE(tc) ((int)(((tc) + 2) << 8))
#define MALLOCX_TCACHE_NONE MALLOCX_TCACHE(-1)
#define MALLOCX_ARENA(a) ((((int)(a)) + 1) << 20)

/* In the place of an arena's number: all of them. */
#define MALLCTL_ARENAS_ALL 4096

void *je_malloc(size_t size);
void *je_calloc(size_t num, size_t size);
void *je_realloc(void *ptr, size_t size);
void je_free(void *ptr);
void *je_aligned_alloc(size_t alignment, size_t size);
void *je_memalign(size_t alignment, size_t size);
int je_posix_memalign(void **memptr, size_t alignment, size_t size);
size_t je_malloc_usable_size(const void *ptr);

void *je_mallocx(size_t size, int flags);
void *je_rallocx(void *ptr, size_t size, int flags);
size_t je_xallocx(void *ptr, size_t size, size_t extra, int flags);
size_t je_sallocx(const void *ptr, int flags);
void je_dallocx(void *ptr, int flags);
void je_sdallocx(void *ptr, size_t size, int flags);
size_t je_nallocx(size_t size, int flags);

int je_mallctl(const char *name, void *oldp, size_t *oldlenp, void *newp, size_t newlen);
int je_mallctlnametomib(const char *name, size_t *mibp, size_t *miblenp);
int je_mallctlbymib(const size_t *mib, size_t miblen, void *oldp, size_t *oldlenp, void *newp,
                    size_t newlen);
void je_malloc_stats_print(void (*write_cb)(void *, const char *), void *cbopaque,
                           const char *opts);

/* Not 0: moving the object would give memory back. Move it with je_mallocx(MALLOCX_TCACHE_NONE),
 * a copy, and je_dallocx(MALLOCX_TCACHE_NONE). See ashlar_frag_hint() in ashlar/compact.h. */
int je_get_defrag_hint(void *ptr);

#ifdef __cplusplus
}
#endif

#endif
