// SPDX-License-Identifier: MIT
// L6 · malloc: the doors of the C library's malloc family.
//
// What:    turns sizes into size classes or pages and checks what callers may get wrong. What
//          the standard leaves open is done as glibc does it.
// Errors:  null and ENOMEM; free keeps errno. Corruption ends the program with one line.
// Threads: any; in signal handlers as far as glibc's malloc goes there.
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <malloc.h>
#include <unistd.h>

#include "../frag_metrics/summary.h"
#include "ashlar/ashlar.h"
#include "check.h"
#include "heap.h"
#include "maintenance.h"
#include "options.h"
#include "stats.h"
#include "thread_cache.h"

#define ASHLAR_DOOR extern "C" [[gnu::visibility("default")]]

namespace ashlar {

namespace {

constexpr Bytes kMostBytes = PTRDIFF_MAX;

[[gnu::cold, gnu::noinline]] void* out_of_memory() {
  errno = ENOMEM;
  return nullptr;
}

[[gnu::noinline]] void* allocate_large(Bytes bytes) {
  bool zero = false;
  return heap.take_large(bytes, kPageBytes, zero);
}

inline void* allocate(Bytes bytes) {
  if (bytes <= kMaxSlotBytes) [[likely]]
    return take_slot(class_for(bytes), bytes);
  return allocate_large(bytes);
}

void* allocate_zeroed(Bytes bytes) {
  bool zero = false;
  void* const p = bytes <= kMaxSlotBytes ? take_slot(class_for(bytes), bytes)
                                         : heap.take_large(bytes, kPageBytes, zero);
  if (p != nullptr && !zero) std::memset(p, 0, bytes);
  return p;
}

// `alignment` is a power of two.
void* allocate_aligned(Bytes alignment, Bytes bytes) {
  if (alignment <= kMinAlignment) return allocate(bytes);
  if (alignment <= kPageBytes) {
    const ClassIndex c = class_for_aligned(bytes, alignment);
    if (c.v < kClassCount) {
      void* const p = take_slot(c, bytes);
      if (reinterpret_cast<std::uintptr_t>(p) % alignment == 0) [[likely]]
        return p;
      give_slot(p);  // a gap in a mosaic
      return heap.take_shared(c);
    }
  }
  if (bytes > kMostBytes) return out_of_memory();
  bool zero = false;
  return heap.take_large(bytes, alignment, zero);
}

// The bytes of an object that can be used; aborts if p does not point to one.
Bytes usable_bytes(const void* p, const char* caller) {
  if (arena.contains(p)) [[likely]] {
    const UnitEntry entry = arena.entry_of(p);
    if (entry.has_slots()) {
      if (const Bytes bytes = slot_bytes_at(p, entry)) return bytes;
    } else if (reinterpret_cast<std::uintptr_t>(p) % kPageBytes == 0 &&
               arena.buddy().is_large(arena.page_of(p))) {
      return bytes_of(arena.buddy().pages_at(arena.page_of(p)));
    }
  }
  reject(p, caller);
}

void* reallocate(void* p, Bytes bytes) {
  const Bytes usable = usable_bytes(p, "realloc");
  const UnitEntry entry = arena.entry_of(p);
  const bool was_slot = usable <= kMaxSlotBytes && !entry.is_free();
  if (was_slot) {
    // Staying is free. Shrinking by less than half is not worth a copy.
    if (bytes <= usable && bytes > usable / 2) return p;
    if (bytes <= kMaxSlotBytes && size_class(class_for(bytes)).slot_bytes == usable) return p;
  } else if (entry.is_free() && bytes > kMaxSlotBytes && bytes <= kMostBytes) {
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

bool multiply(Bytes a, Bytes b, Bytes& product) { return !__builtin_mul_overflow(a, b, &product); }

}  // namespace

}  // namespace ashlar

using namespace ashlar;

// --- C ------------------------------------------------------------------------------------------

ASHLAR_DOOR void* malloc(std::size_t bytes) { return allocate(bytes); }

ASHLAR_DOOR void free(void* p) { give_slot(p); }

ASHLAR_DOOR void* calloc(std::size_t count, std::size_t bytes) {
  Bytes total = 0;
  if (!multiply(count, bytes, total)) return out_of_memory();
  return allocate_zeroed(total);
}

ASHLAR_DOOR void* realloc(void* p, std::size_t bytes) {
  if (p == nullptr) return allocate(bytes);
  if (bytes == 0) {
    give_slot(p, "realloc");
    return nullptr;
  }
  return reallocate(p, bytes);
}

ASHLAR_DOOR void* reallocarray(void* p, std::size_t count, std::size_t bytes) {
  Bytes total = 0;
  if (!multiply(count, bytes, total)) return out_of_memory();
  return realloc(p, total);
}

ASHLAR_DOOR std::size_t malloc_usable_size(void* p) {
  return p == nullptr ? 0 : usable_bytes(p, "malloc_usable_size");
}

// C23. The size is not needed and, as real programs get it wrong, not believed.
ASHLAR_DOOR void free_sized(void* p, std::size_t) { give_slot(p); }
ASHLAR_DOOR void free_aligned_sized(void* p, std::size_t, std::size_t) { give_slot(p); }

// --- alignment ----------------------------------------------------------------------------------

ASHLAR_DOOR int posix_memalign(void** result, std::size_t alignment, std::size_t bytes) {
  if (!is_power_of_two(alignment) || alignment % sizeof(void*) != 0) return EINVAL;
  const int saved_errno = errno;
  void* const p = allocate_aligned(alignment, bytes);
  errno = saved_errno;
  if (p == nullptr) return ENOMEM;
  *result = p;
  return 0;
}

// As in glibc, an alignment that is not a power of two is rounded up to one.
ASHLAR_DOOR void* memalign(std::size_t alignment, std::size_t bytes) {
  if (alignment > kMostBytes / 2 + 1) {
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
  if (bytes > kMostBytes) return out_of_memory();
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

// --- our own ------------------------------------------------------------------------------------

ASHLAR_DOOR const char* ashlar_version(void) { return ASHLAR_VERSION; }

ASHLAR_DOOR int ashlar_get_stats(ashlar_stats* result) {
  HeapStats stats;
  collect_stats(stats);
  result->allocated = stats.allocated;
  result->magazines = stats.magazines;
  result->active = stats.active;
  result->dirty = stats.dirty;
  result->mapped = stats.mapped;
  result->metadata = stats.metadata;
  result->resident = stats.resident;
  return 0;
}

ASHLAR_DOOR int ashlar_report(int fd) {
  if (::write(fd, "", 0) < 0) return -1;
  write_summary(Output(fd));
  return 0;
}

ASHLAR_DOOR int ashlar_report_json(int fd) {
  if (::write(fd, "", 0) < 0) return -1;
  write_json(Output(fd));
  return 0;
}

// --- start and end ------------------------------------------------------------------------------

namespace {

[[gnu::constructor(101)]] void start() {
  read_options();
  heap.start();
  maintenance.start();
}

[[gnu::destructor(101)]] void end() {
  maintenance.stop_thread();
  if (options.exit_report == 1) write_summary(Output(STDERR_FILENO));
  if (options.exit_report == 2) write_json(Output(STDERR_FILENO));
}

}  // namespace
