// SPDX-License-Identifier: MIT
// L6 · malloc: the doors of the C library's malloc family; objects has the rooms.
//
// Errors:  null and ENOMEM; free keeps errno. Corruption ends the program with one line.
// Threads: any; in signal handlers as far as glibc's malloc goes there.
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <malloc.h>
#include <unistd.h>

#include "../frag_metrics/summary.h"
#include "door.h"
#include "maintenance.h"
#include "objects.h"
#include "stats.h"

using namespace ashlar;

// --- C ------------------------------------------------------------------------------------------

ASHLAR_DOOR void* malloc(std::size_t bytes) { return allocate(bytes); }

// Begins 12 bytes into a cache line: so the hit path lies in two lines, and what follows its second
// branch, which many programs take now and then, in one with the return (decision 2).
ASHLAR_DOOR [[gnu::aligned(64), gnu::patchable_function_entry(12, 12)]] void free(void* p);
void free(void* p) { give_slot(p); }

ASHLAR_DOOR void* calloc(std::size_t count, std::size_t bytes) {
  return allocate_zeroed(count, bytes);
}

ASHLAR_DOOR [[gnu::noinline]] void* realloc(void* p, std::size_t bytes) {
  return reallocate(p, bytes);
}

// By realloc's door, which may be another's: tools that replace malloc know nothing of this one.
ASHLAR_DOOR void* reallocarray(void* p, std::size_t count, std::size_t bytes) {
  Bytes total = 0;
  if (__builtin_mul_overflow(count, bytes, &total)) return out_of_memory();
  return realloc(p, total);
}

ASHLAR_DOOR std::size_t malloc_usable_size(void* p) {
  return usable_bytes(p, "malloc_usable_size");
}

// C23. The size is not needed and, as real programs get it wrong, not believed.
ASHLAR_DOOR void free_sized(void* p, std::size_t) { give_slot(p); }
ASHLAR_DOOR void free_aligned_sized(void* p, std::size_t, std::size_t) { give_slot(p); }

// --- alignment ----------------------------------------------------------------------------------

ASHLAR_DOOR int posix_memalign(void** result, std::size_t alignment, std::size_t bytes) {
  return allocate_aligned_posix(result, alignment, bytes);
}

// As in glibc, an alignment that is not a power of two is rounded up to one.
ASHLAR_DOOR void* memalign(std::size_t alignment, std::size_t bytes) {
  if (alignment > kMostObjectBytes / 2 + 1) {
    errno = EINVAL;
    return nullptr;
  }
  return allocate_aligned(std::bit_ceil(alignment), bytes);
}

ASHLAR_DOOR void* aligned_alloc(std::size_t alignment, std::size_t bytes) {
  return memalign(alignment, bytes);
}

ASHLAR_DOOR void* valloc(std::size_t bytes) { return allocate_aligned(kPageBytes, bytes); }

ASHLAR_DOOR void* pvalloc(std::size_t bytes) {
  if (bytes > kMostObjectBytes) return out_of_memory();
  return allocate_aligned(kPageBytes, align_up(bytes, kPageBytes));
}

// --- glibc's own --------------------------------------------------------------------------------

ASHLAR_DOOR int malloc_trim(std::size_t) { return maintenance.trim() ? 1 : 0; }

// glibc's parameters tune a heap of another shape. They are accepted and do nothing.
ASHLAR_DOOR int mallopt(int parameter, int) {
  switch (parameter) {
    case M_MXFAST:
    case M_TRIM_THRESHOLD:
    case M_TOP_PAD:
    case M_MMAP_THRESHOLD:
    case M_MMAP_MAX:
    case M_CHECK_ACTION:
    case M_PERTURB:
    case M_ARENA_TEST:
    case M_ARENA_MAX: return 1;
    default: return 0;
  }
}

ASHLAR_DOOR struct mallinfo2 mallinfo2() {
  HeapStats stats;
  collect_stats(stats);
  struct mallinfo2 info = {};
  info.arena = stats.mapped - stats.large;
  info.hblks = stats.large_blocks;
  info.hblkhd = stats.large;
  info.uordblks = stats.allocated - stats.large;
  info.fordblks = info.arena - info.uordblks;
  info.keepcost = stats.dirty;
  for (const ClassStats& c : stats.classes) info.ordblks += c.slots - c.used;
  info.smblks = 0;
  info.fsmblks = stats.magazines;
  return info;
}

ASHLAR_DOOR struct mallinfo mallinfo() {
  const struct mallinfo2 wide = mallinfo2();
  const auto narrow = [](std::size_t n) { return n < INT32_MAX ? static_cast<int>(n) : INT32_MAX; };
  struct mallinfo info = {};
  info.arena = narrow(wide.arena);
  info.ordblks = narrow(wide.ordblks);
  info.hblks = narrow(wide.hblks);
  info.hblkhd = narrow(wide.hblkhd);
  info.fsmblks = narrow(wide.fsmblks);
  info.uordblks = narrow(wide.uordblks);
  info.fordblks = narrow(wide.fordblks);
  info.keepcost = narrow(wide.keepcost);
  return info;
}

ASHLAR_DOOR int malloc_info(int options, std::FILE* stream) {
  if (options != 0) {
    errno = EINVAL;
    return -1;
  }
  return write_xml(stream) ? 0 : -1;
}

ASHLAR_DOOR void malloc_stats() { write_summary(Output(STDERR_FILENO)); }

// glibc's names for the same functions; whoever finds one of them missing here would get glibc's.
#define ASHLAR_ALIAS(result, alias_name, parameters, target) \
  ASHLAR_DOOR result alias_name parameters __attribute__((alias(#target)))
ASHLAR_ALIAS(void*, __libc_malloc, (std::size_t), malloc);
ASHLAR_ALIAS(void, __libc_free, (void*), free);
ASHLAR_ALIAS(void*, __libc_calloc, (std::size_t, std::size_t), calloc);
ASHLAR_ALIAS(void*, __libc_realloc, (void*, std::size_t), realloc);
ASHLAR_ALIAS(void*, __libc_reallocarray, (void*, std::size_t, std::size_t), reallocarray);
ASHLAR_ALIAS(void*, __libc_memalign, (std::size_t, std::size_t), memalign);
ASHLAR_ALIAS(void*, __libc_valloc, (std::size_t), valloc);
ASHLAR_ALIAS(void*, __libc_pvalloc, (std::size_t), pvalloc);
ASHLAR_ALIAS(int, __posix_memalign, (void**, std::size_t, std::size_t), posix_memalign);
ASHLAR_ALIAS(void, cfree, (void*), free);
