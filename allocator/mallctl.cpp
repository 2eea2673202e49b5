// SPDX-License-Identifier: MIT
#include "mallctl.h"

#include <cerrno>
#include <cstdint>
#include <cstring>
#include <iterator>
#include <string_view>
#include <sys/types.h>

#include "heap.h"
#include "maintenance.h"
#include "options.h"
#include "stats.h"

namespace ashlar {

namespace {

// There is one arena, 0. Two numbers mean "all of them": how many there are, and jemalloc 5's own.
constexpr std::uint64_t kArenas = 1;
constexpr std::uint64_t kAllArenas = 4096;

// The numbers in a name, in order.
struct Numbers {
  std::uint64_t n[2] = {};
};

// What a name stands for, in the type that callers expect.
struct Value {
  std::byte word[8] = {};
  std::size_t bytes = 0;
};

template <class T>
Value value(T n) {
  Value v;
  static_assert(sizeof n <= sizeof v.word);
  std::memcpy(v.word, &n, sizeof n);
  v.bytes = sizeof n;
  return v;
}

// The statistics of the last epoch.
constinit Lock epoch_lock;
constinit HeapStats epoch_stats;    // lock: epoch_lock
constinit std::uint64_t epoch = 0;  // lock: epoch_lock

Value next_epoch(const Numbers&) {
  collect_stats(epoch_stats);
  return value<std::uint64_t>(++epoch);
}

// In jemalloc's words.
const char* huge_pages() {
  return options.thp == kHugePagesAlways  ? "always"
         : options.thp == kHugePagesNever ? "never"
                                          : "default";
}

Value trim(const Numbers&) {
  maintenance.trim();
  return {};
}

Value flush(const Numbers&) {
  if (this_lane() != nullptr) flush_lane(*this_lane());
  return {};
}

// What the slab or block at an address is like. Of an address that is not ours, all is 0.
struct Utilization {
  std::size_t free_slots, slots, bytes;
};

Utilization utilization(const void* p) {
  const Place place = arena.exists() ? arena.locate(p) : Place{};
  if (place.bytes == 0) return {0, 0, 0};
  const UnitEntry entry = arena.entry_of(p);
  if (!entry.is_slab()) return {0, 1, place.bytes};  // nothing can be had beside it
  const SizeClass& info = size_class(entry.size_class());
  return {info.capacity - arena.used_slots_at(p), info.capacity, info.slab_bytes};
}

// experimental.utilization.query: of the slab at one address, and of all slabs of its class as of
// the last epoch.
int ask_utilization(const Query& query) {
  struct Answer {
    const void* current_slab;  // where the class's next slot comes from
    Utilization slab;
    std::size_t free_slots, slots;  // in all slabs of the class
  };
  const void* p = nullptr;
  if (query.output == nullptr || query.output_bytes == nullptr || query.input == nullptr ||
      *query.output_bytes != sizeof(Answer) || query.input_bytes != sizeof p) {
    return EINVAL;
  }
  std::memcpy(&p, query.input, sizeof p);
  Answer answer = {nullptr, utilization(p), 0, 0};
  if (answer.slab.slots > 1) {
    const ClassIndex c = arena.entry_of(p).size_class();
    if (Lane* const lane = this_lane()) answer.current_slab = arena.next_slab(lane->slabs, c);
    epoch_lock.lock();
    if (epoch == 0) next_epoch({});
    answer.slots = epoch_stats.classes[c.v].slots;
    answer.free_slots = answer.slots - epoch_stats.classes[c.v].used;
    epoch_lock.unlock();
  }
  std::memcpy(query.output, &answer, sizeof answer);
  return 0;
}

// experimental.utilization.batch_query: of the slabs at many addresses.
int ask_utilizations(const Query& query) {
  const std::size_t count = query.input_bytes / sizeof(void*);
  if (query.output == nullptr || query.output_bytes == nullptr || query.input == nullptr ||
      count == 0 || query.input_bytes % sizeof(void*) != 0 ||
      *query.output_bytes != count * sizeof(Utilization)) {
    return EINVAL;
  }
  const auto* const objects = static_cast<const void* const*>(query.input);
  auto* const answers = static_cast<Utilization*>(query.output);
  for (std::size_t i = 0; i < count; i++) answers[i] = utilization(objects[i]);
  return 0;
}

const ClassStats& class_stats(std::uint64_t c) { return epoch_stats.classes[c]; }

struct Name {
  std::string_view pattern;
  Value (*read)(const Numbers&) = nullptr;
  enum class Kind : std::uint8_t { reads, acts, epoch, asks } kind = Kind::reads;
  int (*ask)(const Query&) = nullptr;
};

constexpr Name kNames[] = {
    {"epoch", next_epoch, Name::Kind::epoch},
    {"version",
     [](const Numbers&) { return value<const char*>("5.3.0-0-ashlar-" ASHLAR_VERSION); }},
    {"background_thread", [](const Numbers&) { return value(false); }},
    {"max_background_threads", [](const Numbers&) { return value<std::size_t>(0); }},
    {"config.stats", [](const Numbers&) { return value(true); }},
    {"config.prof", [](const Numbers&) { return value(false); }},
    {"config.debug", [](const Numbers&) { return value(false); }},
    {"config.malloc_conf", [](const Numbers&) { return value<const char*>(""); }},
    {"opt.narenas", [](const Numbers&) { return value<unsigned>(1); }},
    {"opt.abort", [](const Numbers&) { return value(false); }},
    {"opt.abort_conf", [](const Numbers&) { return value(false); }},
    {"opt.junk", [](const Numbers&) { return value<const char*>("false"); }},
    {"opt.zero", [](const Numbers&) { return value(false); }},
    {"opt.percpu_arena", [](const Numbers&) { return value<const char*>("disabled"); }},
    {"opt.dss", [](const Numbers&) { return value<const char*>("disabled"); }},
    {"opt.thp", [](const Numbers&) { return value(huge_pages()); }},
    {"opt.metadata_thp", [](const Numbers&) { return value<const char*>("disabled"); }},
    {"opt.tcache", [](const Numbers&) { return value(true); }},
    {"opt.tcache_max", [](const Numbers&) { return value<std::size_t>(kMaxSlotBytes); }},
    {"opt.background_thread", [](const Numbers&) { return value(false); }},
    {"opt.stats_print", [](const Numbers&) { return value(options.exit_report != 0); }},
    {"opt.prof", [](const Numbers&) { return value(false); }},
    {"opt.retain", [](const Numbers&) { return value(false); }},
    {"opt.dirty_decay_ms", [](const Numbers&) { return value<ssize_t>(options.purge_ms); }},
    {"opt.muzzy_decay_ms", [](const Numbers&) { return value<ssize_t>(0); }},
    {"arenas.narenas", [](const Numbers&) { return value<unsigned>(1); }},
    {"arenas.dirty_decay_ms", [](const Numbers&) { return value<ssize_t>(options.purge_ms); }},
    {"arenas.muzzy_decay_ms", [](const Numbers&) { return value<ssize_t>(0); }},
    {"arenas.quantum", [](const Numbers&) { return value<std::size_t>(kMinAlignment); }},
    {"arenas.page", [](const Numbers&) { return value<std::size_t>(kPageBytes); }},
    {"arenas.tcache_max", [](const Numbers&) { return value<std::size_t>(kMaxSlotBytes); }},
    {"arenas.nbins", [](const Numbers&) { return value<unsigned>(kClassCount); }},
    {"arenas.nlextents", [](const Numbers&) { return value<unsigned>(0); }},
    {"arenas.bin.#.size",
     [](const Numbers& at) { return value<std::size_t>(kSizeClasses[at.n[0]].slot_bytes); }},
    {"arenas.bin.#.nregs",
     [](const Numbers& at) { return value<std::uint32_t>(kSizeClasses[at.n[0]].capacity); }},
    {"arenas.bin.#.slab_size",
     [](const Numbers& at) { return value<std::size_t>(kSizeClasses[at.n[0]].slab_bytes); }},
    {"thread.tcache.enabled", [](const Numbers&) { return value(true); }},
    {"thread.tcache.flush", flush, Name::Kind::acts},
    {"experimental.utilization.query", nullptr, Name::Kind::asks, ask_utilization},
    {"experimental.utilization.batch_query", nullptr, Name::Kind::asks, ask_utilizations},
    {"arena.#.purge", trim, Name::Kind::acts},
    {"arena.#.decay", trim, Name::Kind::acts},
    {"arena.#.initialized", [](const Numbers&) { return value(true); }},
    {"arena.#.dirty_decay_ms", [](const Numbers&) { return value<ssize_t>(options.purge_ms); }},
    {"arena.#.muzzy_decay_ms", [](const Numbers&) { return value<ssize_t>(0); }},
    {"stats.allocated", [](const Numbers&) { return value<std::size_t>(epoch_stats.allocated); }},
    {"stats.active", [](const Numbers&) { return value<std::size_t>(epoch_stats.active); }},
    {"stats.metadata", [](const Numbers&) { return value<std::size_t>(epoch_stats.metadata); }},
    {"stats.metadata_thp", [](const Numbers&) { return value<std::size_t>(0); }},
    {"stats.resident", [](const Numbers&) { return value<std::size_t>(epoch_stats.resident); }},
    {"stats.mapped", [](const Numbers&) { return value<std::size_t>(epoch_stats.mapped); }},
    {"stats.retained", [](const Numbers&) { return value<std::size_t>(0); }},
    {"stats.arenas.#.nthreads", [](const Numbers&) { return value<unsigned>(epoch_stats.lanes); }},
    {"stats.arenas.#.pactive",
     [](const Numbers&) { return value<std::size_t>(epoch_stats.active / kPageBytes); }},
    {"stats.arenas.#.pdirty",
     [](const Numbers&) { return value<std::size_t>(epoch_stats.dirty / kPageBytes); }},
    {"stats.arenas.#.pmuzzy", [](const Numbers&) { return value<std::size_t>(0); }},
    {"stats.arenas.#.mapped",
     [](const Numbers&) { return value<std::size_t>(epoch_stats.mapped); }},
    {"stats.arenas.#.retained", [](const Numbers&) { return value<std::size_t>(0); }},
    {"stats.arenas.#.resident",
     [](const Numbers&) { return value<std::size_t>(epoch_stats.resident); }},
    {"stats.arenas.#.base",
     [](const Numbers&) { return value<std::size_t>(epoch_stats.metadata); }},
    {"stats.arenas.#.internal", [](const Numbers&) { return value<std::size_t>(0); }},
    {"stats.arenas.#.tcache_bytes",
     [](const Numbers&) { return value<std::size_t>(epoch_stats.magazines); }},
    {"stats.arenas.#.small.allocated",
     [](const Numbers&) { return value<std::size_t>(epoch_stats.allocated - epoch_stats.large); }},
    {"stats.arenas.#.large.allocated",
     [](const Numbers&) { return value<std::size_t>(epoch_stats.large); }},
    {"stats.arenas.#.bins.#.curregs",
     [](const Numbers& at) { return value<std::size_t>(class_stats(at.n[1]).used); }},
    {"stats.arenas.#.bins.#.curslabs",
     [](const Numbers& at) { return value<std::size_t>(class_stats(at.n[1]).slabs); }},
    {"stats.arenas.#.bins.#.nonfull_slabs",
     [](const Numbers& at) { return value<std::size_t>(class_stats(at.n[1]).open_slabs); }},
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

Value read(const Name& name, const Numbers& numbers, bool written) {
  if (name.kind == Name::Kind::acts) return name.read(numbers);
  epoch_lock.lock();
  if (epoch == 0) next_epoch(numbers);
  // Reading the epoch does not begin a new one.
  const bool peeks = name.kind == Name::Kind::epoch && !written;
  const Value seen = peeks ? value<std::uint64_t>(epoch) : name.read(numbers);
  epoch_lock.unlock();
  return seen;
}

}  // namespace

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
    Numbers numbers;
    return numbers_of(kNames[row], mib, numbers);
  }
  return false;
}

int control(const Mib& mib, const Query& query) {
  if (mib.length == 0 || mib.part[0] >= std::size(kNames)) return ENOENT;
  const Name& name = kNames[mib.part[0]];
  Numbers numbers;
  if (!numbers_of(name, mib, numbers)) return ENOENT;
  if (name.kind == Name::Kind::asks) return name.ask(query);
  if (query.input != nullptr && name.kind == Name::Kind::reads) return EPERM;
  const Value seen = read(name, numbers, query.input != nullptr);
  if (query.output == nullptr || query.output_bytes == nullptr) return 0;
  if (seen.bytes == 0) return *query.output_bytes == 0 ? 0 : EPERM;  // there is nothing to read
  const std::size_t fits = *query.output_bytes < seen.bytes ? *query.output_bytes : seen.bytes;
  std::memcpy(query.output, seen.word, fits);
  const bool right = *query.output_bytes == seen.bytes;
  *query.output_bytes = fits;
  return right ? 0 : EINVAL;
}

}  // namespace ashlar
