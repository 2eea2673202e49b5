/* SPDX-License-Identifier: MIT
 *
 * Ashlar: a malloc for Linux with fragmentation under control.
 *
 * Linking with libashlar (or preloading it) replaces malloc, free and their family, and the
 * C++ operators new and delete. Nothing in this header is needed for that.
 *
 * Caveats. Memory from this malloc must not be given to another one's free. The heap behind
 * malloc is never destroyed, and the library cannot be unloaded.
 */
#ifndef ASHLAR_ASHLAR_H
#define ASHLAR_ASHLAR_H

#include <stddef.h>
#include <stdint.h>

#include <ashlar/compact.h> /* for programs that can move their objects */

#ifdef __cplusplus
extern "C" {
#endif

#define ASHLAR_VERSION_MAJOR 0
#define ASHLAR_VERSION_MINOR 1
#define ASHLAR_VERSION_PATCH 0

/* "0.1.0". Thread-safe, async-signal-safe. */
const char *ashlar_version(void);

/* A program may define this to bring its own settings: "purge_ms:500,exit_report:text". The
 * environment variable ASHLAR_CONF has the same form and wins. docs/options.md lists the keys. */
extern const char *ashlar_conf __attribute__((weak));

/* The heap in bytes. allocated <= active <= mapped; dirty, metadata and resident are measured. */
typedef struct ashlar_stats {
  uint64_t allocated; /* in slots and pages that the program holds; sizes rounded up to classes */
  uint64_t magazines; /* in free slots that threads keep at hand */
  uint64_t active;    /* in slabs and large blocks */
  uint64_t dirty;     /* in free pages that are in memory still */
  uint64_t mapped;    /* all chunks */
  uint64_t metadata;  /* of our own, in memory now */
  uint64_t resident;  /* of chunks and metadata, in memory now */
} ashlar_stats;

/* Fills *stats. Reads counters while other threads go on, so sums may be off by what they did
 * meanwhile. Costs a system call per 2 MiB of heap. Thread-safe, async-signal-safe; never
 * allocates. Returns 0. */
int ashlar_get_stats(ashlar_stats *stats);

/* Writes the account that exit_report:text shows to a file descriptor. Thread-safe,
 * async-signal-safe; never allocates. Returns 0, or -1 and errno when fd cannot be written to. */
int ashlar_report(int fd);

/* The same as one JSON object: "schema", "heap" with the numbers above in bytes, "classes", and
 * "heaps" that the program made. frag_metrics/README.md defines them. */
int ashlar_report_json(int fd);

/* --- Heaps of one's own --------------------------------------------------------------------------
 *
 * Objects that live and die together: a request, a document, a plug-in. They lie together, are
 * accounted for together, and go at once, large ones too, without a free each.
 *
 * Thread-safe: a heap may be used by many threads, and in the child of a fork; one lock guards each.
 * Not async-signal-safe. What can be known to be wrong (an object of another heap, a double free, a
 * heap that was destroyed) ends the program with one line, as free() does. */
typedef struct ashlar_heap ashlar_heap;

/* What the application decides for a heap. Every function may be null, and then what is said there
 * holds. None is called where memory is at hand. While commit and purge run, the heap is locked:
 * they must not use it, but may use malloc. */
typedef struct ashlar_heap_policy {
  void *context; /* handed to each of them */

  /* Where pages come from. With `reserve` the heap lives in pages of its own, not among those of
   * malloc: free(), realloc() and malloc_usable_size() do not know its objects.
   *
   * reserve: returns `bytes` of addresses, at a multiple of 2 MiB; null: there are none. Called
   *          once, with reserve_bytes (at least 4 MiB; a twentieth is taken by accounts).
   * commit:  makes pages readable, writable and zero. Not 0: no memory. Null: they are already.
   * purge:   these pages are not needed; afterwards they read as zero. Not 0: they were kept as they
   *          are. Null: nothing ever goes back before the end.
   * release: the heap is destroyed. Null: nothing is done. */
  size_t reserve_bytes;
  void *(*reserve)(void *context, size_t bytes);
  int (*commit)(void *context, void *address, size_t bytes);
  int (*purge)(void *context, void *address, size_t bytes);
  void (*release)(void *context, void *address, size_t bytes);

  /* Whether idle pages of this heap may go back now; asked before each look for them, and the heap
   * is locked. 0: not now. Null: always. */
  int (*may_purge)(void *context);

  /* Memory for `bytes` is out. May free objects of this heap or others. Not 0: try again. Null: the
   * call fails with ENOMEM. */
  int (*out_of_memory)(void *context, size_t bytes);
} ashlar_heap_policy;

/* A new heap. policy: copied; null: all defaults, pages from where malloc has them, and free() may
 * be used for its objects as well. Null and ENOMEM; null and EINVAL when the region is too small or
 * not aligned. */
ashlar_heap *ashlar_heap_create(const ashlar_heap_policy *policy);
/* A heap in memory that the caller brings, at least 6 MiB (4 MiB at a multiple of 2 MiB), which
 * reads as zero. The heap neither grows nor returns pages; when it is destroyed, the memory is the
 * caller's again. Null and EINVAL when it is too small. */
ashlar_heap *ashlar_heap_create_in(void *memory, size_t bytes);
/* Ends the lives of all its objects. No other thread may use the heap or them any more. Time: a
 * walk over the table of malloc's units, 64 KiB each, or with pages of its own, none. */
void ashlar_heap_destroy(ashlar_heap *heap);

/* As malloc, aligned_alloc, realloc and free. An alignment that is not a power of two is rounded up
 * to one. realloc of null is malloc; to 0 bytes, free. */
void *ashlar_heap_malloc(ashlar_heap *heap, size_t bytes);
void *ashlar_heap_memalign(ashlar_heap *heap, size_t alignment, size_t bytes);
void *ashlar_heap_realloc(ashlar_heap *heap, void *object, size_t bytes);
void ashlar_heap_free(ashlar_heap *heap, void *object);
/* Bytes of the object that can be used, at least as many as were asked for; 0 for null. */
size_t ashlar_heap_usable_size(ashlar_heap *heap, const void *object);

/* A heap in bytes. allocated <= active. */
typedef struct ashlar_heap_stats {
  uint64_t objects;   /* that the program holds */
  uint64_t allocated; /* in them; sizes rounded up to classes */
  uint64_t active;    /* in the heap's slabs and large blocks */
} ashlar_heap_stats;

/* Fills *stats without locking; see ashlar_get_stats. An object that was freed by free() from
 * another place may count until the heap is used next. Time: as for destroy. Returns 0. */
int ashlar_heap_get_stats(ashlar_heap *heap, ashlar_heap_stats *stats);

#ifdef __cplusplus
}
#endif

#endif
