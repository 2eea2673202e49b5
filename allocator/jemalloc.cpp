// SPDX-License-Identifier: MIT
#include "jemalloc.h"

#include <cerrno>
#include <cstdint>
#include <cstring>
#include <unistd.h>

#include "../frag_metrics/summary.h"
#include "compact.h"
#include "mallctl.h"
#include "objects.h"

namespace ashlar::jemalloc {

namespace {

constexpr int kFlagZero = 0x40;

Bytes alignment_of(int flags) {
  const unsigned power = static_cast<unsigned>(flags) & 0x3f;
  return power == 0 ? kMinAlignment : Bytes{1} << power;
}

bool is_past_caches(int flags) { return (flags >> 8 & 0xfff) == 1; }

}  // namespace

// --- names --------------------------------------------------------------------------------------

int mallctl(const char* name, const Query& query) {
  Mib mib;
  return find_name(name, mib) ? control(mib, query) : ENOENT;
}

int mallctlnametomib(const char* name, std::size_t* parts, std::size_t* length) {
  Mib mib;
  if (!find_name(name, mib)) return ENOENT;
  if (*length > mib.length) *length = mib.length;
  std::memcpy(parts, mib.part, *length * sizeof *parts);
  return 0;
}

int mallctlbymib(const std::size_t* parts, std::size_t length, const Query& query) {
  Mib mib;
  if (length == 0 || length > Mib::kMostParts) return ENOENT;
  std::memcpy(mib.part, parts, length * sizeof *parts);
  mib.length = length;
  return control(mib, query);
}

void malloc_stats_print(void (*write)(void*, const char*), void* context, const char* settings) {
  const Output out = write == nullptr ? Output(STDERR_FILENO) : Output(write, context);
  if (settings != nullptr && std::strchr(settings, 'J') != nullptr) {
    write_json(out);
  } else {
    write_summary(out);
  }
}

// --- objects ------------------------------------------------------------------------------------

Bytes nallocx(Bytes bytes, int flags) {
  const Bytes alignment = alignment_of(flags);
  if (bytes > kMostBlockBytes || alignment > kMostBlockBytes) return 0;
  if (alignment <= kPageBytes) {
    const ClassIndex c = class_for_aligned(bytes == 0 ? 1 : bytes, alignment);
    if (c.v < kClassCount) return size_class(c).slot_bytes;
  }
  return bytes_of(pages_for(bytes));
}

void* mallocx(Bytes bytes, int flags) {
  const Bytes alignment = alignment_of(flags);
  void* const p =
      is_past_caches(flags) ? allocate_dense(alignment, bytes) : allocate_aligned(alignment, bytes);
  if (p != nullptr && (flags & kFlagZero) != 0) std::memset(p, 0, usable_bytes(p, "mallocx"));
  return p;
}

void* rallocx(void* p, Bytes bytes, int flags) {
  const Bytes before = usable_bytes(p, "rallocx");
  void* to = nullptr;
  if (alignment_of(flags) <= kMinAlignment && !is_past_caches(flags)) {
    to = reallocate(p, bytes == 0 ? 1 : bytes);
  } else {
    to = mallocx(bytes, flags & ~kFlagZero);
    if (to != nullptr) {
      std::memcpy(to, p, before < bytes ? before : bytes);
      dallocx(p, flags, "rallocx");
    }
  }
  if (to == nullptr || (flags & kFlagZero) == 0) return to;
  const Bytes after = usable_bytes(to, "rallocx");
  if (after > before) std::memset(static_cast<std::byte*>(to) + before, 0, after - before);
  return to;
}

// In place or not at all. Slots have the size of their class; large objects grow and shrink by
// pages.
Bytes xallocx(void* p, Bytes bytes, Bytes extra, int flags) {
  const Bytes before = usable_bytes(p, "xallocx");
  if (before <= kMaxSlotBytes || bytes <= kMaxSlotBytes ||
      arena.buddy().kind_at(arena.page_of(p)) != BlockKind::large) {
    return before;
  }
  const Bytes most = extra > PTRDIFF_MAX - bytes ? Bytes{PTRDIFF_MAX} : bytes + extra;
  for (const Bytes wanted : {most, bytes}) {
    const PageCount pages = pages_for(wanted);
    bool zero = false;
    if (wanted > kMostBlockBytes || bytes_of(pages) == before) continue;
    if (!arena.resize_pages(p, pages, zero)) continue;
    if (bytes_of(pages) > before && (flags & kFlagZero) != 0 && !zero) {
      std::memset(static_cast<std::byte*>(p) + before, 0, bytes_of(pages) - before);
    }
    return bytes_of(pages);
  }
  return before;
}

void dallocx(void* p, int flags, const char* caller) {
  if (is_past_caches(flags)) return compactor.give(p, caller);
  give_slot(p, caller);
}

int get_defrag_hint(const void* p) { return compactor.hint(p) != 0; }

}  // namespace ashlar::jemalloc
