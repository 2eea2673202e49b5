// SPDX-License-Identifier: MIT
// L6 · jemalloc: the doors of jemalloc's own interface, for programs that were built for it.
//
// What:    mallctl and its like, the mallocx family, malloc_stats_print. Such a program asks them
//          how its heap is; without these it would be told of a heap that it does not use. Names,
//          types and error codes are those of jemalloc's manual; what has no meaning here (its
//          profiler, caches and hooks) is ENOENT, which programs must expect.
// How:     one table of names. '#' stands for a number: an arena (there is one; jemalloc's index
//          for "all" means the same) or a size class. A name that acts does so when it is called;
//          all others are read-only (EPERM). Statistics are those of the last "epoch".
// Threads: any. Not for signal handlers: a lock guards the statistics.
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <iterator>
#include <malloc.h>
#include <string_view>
#include <unistd.h>

#include "../frag_metrics/summary.h"
#include "maintenance.h"
#include "options.h"
#include "stats.h"

#define ASHLAR_DOOR extern "C" [[gnu::visibility("default")]]

namespace ashlar {

namespace {

// --- the names ----------------------------------------------------------------------------------

constexpr std::size_t kMostParts = 8;  // of a name
// There is one arena, 0. Two numbers mean "all of them": how many there are, and jemalloc 5's own.
constexpr std::uint64_t kArenas = 1;
constexpr std::uint64_t kAllArenas = 4096;

// The numbers in a name, in order.
struct Numbers {
  std::uint64_t n[2] = {};
};

// What a name stands for, in the type that callers expect.
struct Value {
  enum class Type : std::uint8_t { none, size, unsigned_int, u64, ssize, boolean, text };
  Type type = Type::none;
  union {
    std::size_t size = 0;
    unsigned unsigned_int;
    std::uint64_t u64;
    ssize_t ssize;
    bool boolean;
    const char* text;
  };

  std::size_t bytes() const {
    switch (type) {
      case Type::none: return 0;
      case Type::unsigned_int: return sizeof(unsigned);
      case Type::boolean: return sizeof(bool);
      case Type::size:
      case Type::u64:
      case Type::ssize:
      case Type::text: return 8;
    }
    return 0;
  }
};

Value size_value(std::size_t n) {
  Value v;
  v.type = Value::Type::size;
  v.size = n;
  return v;
}
Value unsigned_value(unsigned n) {
  Value v;
  v.type = Value::Type::unsigned_int;
  v.unsigned_int = n;
  return v;
}
Value u64_value(std::uint64_t n) {
  Value v;
  v.type = Value::Type::u64;
  v.u64 = n;
  return v;
}
Value ssize_value(ssize_t n) {
  Value v;
  v.type = Value::Type::ssize;
  v.ssize = n;
  return v;
}
Value bool_value(bool b) {
  Value v;
  v.type = Value::Type::boolean;
  v.boolean = b;
  return v;
}
Value text_value(const char* text) {
  Value v;
  v.type = Value::Type::text;
  v.text = text;
  return v;
}

// The statistics of the last epoch.
constinit Lock epoch_lock;
constinit HeapStats epoch_stats;    // lock: epoch_lock
constinit std::uint64_t epoch = 0;  // lock: epoch_lock

Value next_epoch(const Numbers&) {
  collect_stats(epoch_stats);
  return u64_value(++epoch);
}

Value trim(const Numbers&) {
  maintenance.trim();
  return {};
}

const ClassStats& class_stats(std::uint64_t c) { return epoch_stats.classes[c]; }

struct Name {
  std::string_view pattern;
  Value (*read)(const Numbers&);
  enum class Kind : std::uint8_t { reads, acts, epoch } kind = Kind::reads;
};

constexpr Name kNames[] = {
    {"epoch", next_epoch, Name::Kind::epoch},
    {"version", [](const Numbers&) { return text_value("5.3.0-0-ashlar-" ASHLAR_VERSION); }},
    {"background_thread", [](const Numbers&) { return bool_value(false); }},
    {"max_background_threads", [](const Numbers&) { return size_value(0); }},
    {"config.stats", [](const Numbers&) { return bool_value(true); }},
    {"config.prof", [](const Numbers&) { return bool_value(false); }},
    {"config.debug", [](const Numbers&) { return bool_value(false); }},
    {"config.malloc_conf", [](const Numbers&) { return text_value(""); }},
    {"opt.narenas", [](const Numbers&) { return unsigned_value(1); }},
    {"opt.abort", [](const Numbers&) { return bool_value(false); }},
    {"opt.tcache", [](const Numbers&) { return bool_value(true); }},
    {"opt.tcache_max", [](const Numbers&) { return size_value(kMaxSlotBytes); }},
    {"opt.background_thread", [](const Numbers&) { return bool_value(false); }},
    {"opt.stats_print", [](const Numbers&) { return bool_value(options.exit_report != 0); }},
    {"opt.prof", [](const Numbers&) { return bool_value(false); }},
    {"opt.retain", [](const Numbers&) { return bool_value(false); }},
    {"opt.dirty_decay_ms", [](const Numbers&) { return ssize_value(options.purge_ms); }},
    {"opt.muzzy_decay_ms", [](const Numbers&) { return ssize_value(0); }},
    {"arenas.narenas", [](const Numbers&) { return unsigned_value(1); }},
    {"arenas.dirty_decay_ms", [](const Numbers&) { return ssize_value(options.purge_ms); }},
    {"arenas.muzzy_decay_ms", [](const Numbers&) { return ssize_value(0); }},
    {"arenas.quantum", [](const Numbers&) { return size_value(kMinAlignment); }},
    {"arenas.page", [](const Numbers&) { return size_value(kPageBytes); }},
    {"arenas.tcache_max", [](const Numbers&) { return size_value(kMaxSlotBytes); }},
    {"arenas.nbins", [](const Numbers&) { return unsigned_value(kClassCount); }},
    {"arenas.nlextents", [](const Numbers&) { return unsigned_value(0); }},
    {"arenas.bin.#.size",
     [](const Numbers& at) { return size_value(kSizeClasses[at.n[0]].slot_bytes); }},
    {"arenas.bin.#.nregs",
     [](const Numbers& at) { return unsigned_value(kSizeClasses[at.n[0]].capacity); }},
    {"arenas.bin.#.slab_size",
     [](const Numbers& at) { return size_value(kSizeClasses[at.n[0]].slab_bytes); }},
    {"arena.#.purge", trim, Name::Kind::acts},
    {"arena.#.decay", trim, Name::Kind::acts},
    {"arena.#.initialized", [](const Numbers&) { return bool_value(true); }},
    {"arena.#.dirty_decay_ms", [](const Numbers&) { return ssize_value(options.purge_ms); }},
    {"arena.#.muzzy_decay_ms", [](const Numbers&) { return ssize_value(0); }},
    {"stats.allocated", [](const Numbers&) { return size_value(epoch_stats.allocated); }},
    {"stats.active", [](const Numbers&) { return size_value(epoch_stats.active); }},
    {"stats.metadata", [](const Numbers&) { return size_value(epoch_stats.metadata); }},
    {"stats.metadata_thp", [](const Numbers&) { return size_value(0); }},
    {"stats.resident", [](const Numbers&) { return size_value(epoch_stats.resident); }},
    {"stats.mapped", [](const Numbers&) { return size_value(epoch_stats.mapped); }},
    {"stats.retained", [](const Numbers&) { return size_value(0); }},
    {"stats.arenas.#.nthreads", [](const Numbers&) { return unsigned_value(epoch_stats.lanes); }},
    {"stats.arenas.#.pactive",
     [](const Numbers&) { return size_value(epoch_stats.active / kPageBytes); }},
    {"stats.arenas.#.pdirty",
     [](const Numbers&) { return size_value(epoch_stats.dirty / kPageBytes); }},
    {"stats.arenas.#.pmuzzy", [](const Numbers&) { return size_value(0); }},
    {"stats.arenas.#.mapped", [](const Numbers&) { return size_value(epoch_stats.mapped); }},
    {"stats.arenas.#.retained", [](const Numbers&) { return size_value(0); }},
    {"stats.arenas.#.resident", [](const Numbers&) { return size_value(epoch_stats.resident); }},
    {"stats.arenas.#.base", [](const Numbers&) { return size_value(epoch_stats.metadata); }},
    {"stats.arenas.#.internal", [](const Numbers&) { return size_value(0); }},
    {"stats.arenas.#.tcache_bytes",
     [](const Numbers&) { return size_value(epoch_stats.magazines); }},
    {"stats.arenas.#.small.allocated",
     [](const Numbers&) { return size_value(epoch_stats.allocated - epoch_stats.large); }},
    {"stats.arenas.#.large.allocated",
     [](const Numbers&) { return size_value(epoch_stats.large); }},
    {"stats.arenas.#.bins.#.curregs",
     [](const Numbers& at) { return size_value(class_stats(at.n[1]).used); }},
    {"stats.arenas.#.bins.#.curslabs",
     [](const Numbers& at) { return size_value(class_stats(at.n[1]).slabs); }},
};

// Removes and returns what stands before the first dot.
std::string_view cut_part(std::string_view& rest) {
  std::size_t length = 0;
  while (length < rest.size() && rest[length] != '.') length++;
  const std::string_view part(rest.data(), length);
  rest.remove_prefix(length < rest.size() ? length + 1 : length);
  return part;
}

bool read_number(std::string_view part, std::size_t& n) {
  n = 0;
  if (part.empty() || part.size() > 9) return false;
  for (const char digit : part) {
    if (digit < '0' || digit > '9') return false;
    n = n * 10 + static_cast<std::size_t>(digit - '0');
  }
  return true;
}

// A name in numbers, as mallctlnametomib gives it: its parts, those that are numbers as they are,
// and in the place of the first the row of the table.
struct Mib {
  std::size_t part[kMostParts] = {};
  std::size_t length = 0;
};

bool find_name(std::string_view name, Mib& mib) {
  for (std::size_t row = 0; row < std::size(kNames); row++) {
    std::string_view pattern = kNames[row].pattern;
    std::string_view rest = name;
    mib = {};
    bool same = true;
    while (same && !pattern.empty()) {
      const std::string_view wanted = cut_part(pattern);
      const std::string_view part = cut_part(rest);
      same = wanted == "#" ? read_number(part, mib.part[mib.length]) : wanted == part;
      mib.length++;
    }
    if (!same || !rest.empty()) continue;
    mib.part[0] = row;
    return true;
  }
  return false;
}

// The numbers of a mib, if they are of things that exist.
bool numbers_of(const Name& name, const Mib& mib, Numbers& numbers) {
  std::string_view pattern = name.pattern;
  std::string_view before;
  std::size_t count = 0;
  for (std::size_t i = 0; !pattern.empty(); i++) {
    const std::string_view part = cut_part(pattern);
    if (part == "#") {
      const bool is_class = before == "bin" || before == "bins";
      const std::size_t n = mib.part[i];
      if (is_class ? n >= kClassCount : n > kArenas && n != kAllArenas) return false;
      numbers.n[count++] = n;
    }
    before = part;
  }
  return true;
}

Value value_of(const Name& name, const Numbers& numbers, bool written) {
  if (name.kind == Name::Kind::acts) return name.read(numbers);
  epoch_lock.lock();
  if (epoch == 0) next_epoch(numbers);
  // Reading the epoch does not begin a new one.
  const bool peeks = name.kind == Name::Kind::epoch && !written;
  const Value value = peeks ? u64_value(epoch) : name.read(numbers);
  epoch_lock.unlock();
  return value;
}

int control(const Mib& mib, void* old_value, std::size_t* old_bytes, const void* new_value) {
  if (mib.length == 0 || mib.part[0] >= std::size(kNames)) return ENOENT;
  const Name& name = kNames[mib.part[0]];
  Numbers numbers;
  if (!numbers_of(name, mib, numbers)) return ENOENT;
  if (new_value != nullptr && name.kind == Name::Kind::reads) return EPERM;
  const Value value = value_of(name, numbers, new_value != nullptr);
  if (old_value == nullptr || old_bytes == nullptr) return 0;
  const std::size_t bytes = value.bytes();
  if (bytes == 0) return *old_bytes == 0 ? 0 : EPERM;  // there is nothing to read
  const std::size_t fits = *old_bytes < bytes ? *old_bytes : bytes;
  std::memcpy(old_value, &value.size, fits);
  const bool right = *old_bytes == bytes;
  *old_bytes = fits;
  return right ? 0 : EINVAL;
}

// --- the mallocx family -------------------------------------------------------------------------

constexpr int kFlagZero = 0x40;

Bytes alignment_of(int flags) {
  const unsigned power = static_cast<unsigned>(flags) & 0x3f;
  return power == 0 ? kMinAlignment : Bytes{1} << power;
}

// What an allocation of that size and alignment would hold, or 0: none is that large.
Bytes real_bytes(Bytes bytes, Bytes alignment) {
  if (bytes > kMostBlockBytes || alignment > kMostBlockBytes) return 0;
  if (alignment <= kPageBytes) {
    const ClassIndex c = class_for_aligned(bytes == 0 ? 1 : bytes, alignment);
    if (c.v < kClassCount) return size_class(c).slot_bytes;
  }
  return bytes_of(pages_for(bytes));
}

void* allocate(Bytes bytes, int flags) {
  void* const p = ::memalign(alignment_of(flags), bytes);
  if (p != nullptr && (flags & kFlagZero) != 0) std::memset(p, 0, ::malloc_usable_size(p));
  return p;
}

}  // namespace

}  // namespace ashlar

using namespace ashlar;

ASHLAR_DOOR int mallctl(const char* name, void* old_value, std::size_t* old_bytes, void* new_value,
                        std::size_t) {
  Mib mib;
  return find_name(name, mib) ? control(mib, old_value, old_bytes, new_value) : ENOENT;
}

ASHLAR_DOOR int mallctlnametomib(const char* name, std::size_t* parts, std::size_t* length) {
  Mib mib;
  if (!find_name(name, mib)) return ENOENT;
  if (*length > mib.length) *length = mib.length;
  std::memcpy(parts, mib.part, *length * sizeof *parts);
  return 0;
}

ASHLAR_DOOR int mallctlbymib(const std::size_t* parts, std::size_t length, void* old_value,
                             std::size_t* old_bytes, void* new_value, std::size_t) {
  Mib mib;
  if (length == 0 || length > kMostParts) return ENOENT;
  std::memcpy(mib.part, parts, length * sizeof *parts);
  mib.length = length;
  return control(mib, old_value, old_bytes, new_value);
}

// "J" in `settings` asks for JSON. Other letters of jemalloc's leave out parts that are not here.
ASHLAR_DOOR void malloc_stats_print(void (*write)(void*, const char*), void* context,
                                    const char* settings) {
  const Output out = write == nullptr ? Output(STDERR_FILENO) : Output(write, context);
  if (settings != nullptr && std::strchr(settings, 'J') != nullptr) {
    write_json(out);
  } else {
    write_summary(out);
  }
}

ASHLAR_DOOR std::size_t nallocx(std::size_t bytes, int flags) {
  return real_bytes(bytes, alignment_of(flags));
}

ASHLAR_DOOR void* mallocx(std::size_t bytes, int flags) { return allocate(bytes, flags); }

ASHLAR_DOOR void* rallocx(void* p, std::size_t bytes, int flags) {
  const Bytes before = ::malloc_usable_size(p);
  void* to = nullptr;
  if (alignment_of(flags) <= kMinAlignment) {
    to = ::realloc(p, bytes == 0 ? 1 : bytes);
  } else {
    to = ::memalign(alignment_of(flags), bytes);
    if (to != nullptr) {
      std::memcpy(to, p, before < bytes ? before : bytes);
      ::free(p);
    }
  }
  if (to == nullptr || (flags & kFlagZero) == 0) return to;
  const Bytes after = ::malloc_usable_size(to);
  if (after > before) std::memset(static_cast<std::byte*>(to) + before, 0, after - before);
  return to;
}

// In place or not at all. Slots have the size of their class; large objects grow and shrink by
// pages.
ASHLAR_DOOR std::size_t xallocx(void* p, std::size_t bytes, std::size_t extra, int flags) {
  const Bytes before = ::malloc_usable_size(p);
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

ASHLAR_DOOR std::size_t sallocx(const void* p, int) {
  return ::malloc_usable_size(const_cast<void*>(p));
}
ASHLAR_DOOR void dallocx(void* p, int) { ::free(p); }
ASHLAR_DOOR void sdallocx(void* p, std::size_t, int) { ::free(p); }
