// SPDX-License-Identifier: MIT
#include "sampler.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "thread_cache.h"

namespace ashlar {

constinit Sampler sampler;

namespace {

// An address has its cell in the index among so many, which its hash says (double hashing): with
// half of all cells taken, one address in 2^32 finds no room.
constexpr std::uint32_t kProbes = 32;

std::uint64_t mix(std::uint64_t x) {  // splitmix64 (Steele, Lea, Flood 2014)
  x = (x ^ x >> 30) * 0xbf58'476d'1ce4'e5b9;
  x = (x ^ x >> 27) * 0x94d0'49bb'1331'11eb;
  return x ^ x >> 31;
}

constexpr std::uint64_t kStep = 0x9e37'79b9'7f4a'7c15;  // 2^64 over the golden ratio

// Where an address has its cell in the filter: Fibonacci hashing.
std::uint32_t filter_cell_of(const void* p) {
  static_assert(SampleTable::kFilterCells == 1 << 16);
  return static_cast<std::uint32_t>(reinterpret_cast<std::uintptr_t>(p) * kStep >> 48);
}

// The natural logarithm of n / 2^53, for 0 < n <= 2^53, to five digits: the exponent, and for the
// mantissa m in [1, 2) the series of 2 artanh((m − 1) / (m + 1)). The C library's is in libm.
double log_of_fraction(std::uint64_t n) {
  const int exponent = static_cast<int>(std::bit_width(n)) - 1;
  const double m = static_cast<double>(n) / static_cast<double>(std::uint64_t{1} << exponent);
  const double z = (m - 1) / (m + 1);
  const double zz = z * z;
  const double series = 2 * z * (1 + zz * (1.0 / 3 + zz * (1.0 / 5 + zz * (1.0 / 7 + zz / 9))));
  return (exponent - 53) * 0.693'147'180'559'945 + series;
}

// --- the stack ---

// A part of this thread's own stack, to its end, which is known to be readable: it stays so while
// the thread lives. Asking the kernel would cost more than all the rest of a sample.
struct StackPart {
  std::uintptr_t begin, end;
};
constinit thread_local StackPart t_readable __attribute__((tls_model("initial-exec"))) = {0, 0};

// More than that is not asked about to learn it.
constexpr Bytes kMostToLearn = 256 * kKiB;

// Where this thread's own stack ends: at its thread-local variables; the first one's below what the
// kernel gave the process. The first thread's variables lie among mappings, where a program may
// have stacks of coroutines right below them, and unmap those.
std::uintptr_t end_of_own_stack() {
  return os::thread_number() == os::process_number()
             ? os::end_of_first_stack()
             : reinterpret_cast<std::uintptr_t>(&t_readable);
}

// How much of the stack from there on can be copied.
Bytes readable_stack(std::uintptr_t begin) {
  if (begin >= t_readable.begin && begin < t_readable.end) [[likely]]
    return std::min(t_readable.end - begin, SampleRecord::kStackBytes);
  const std::uintptr_t end = end_of_own_stack();
  const bool may_be_own = begin < end;
  const Bytes most = may_be_own && end - begin < SampleRecord::kStackBytes
                         ? end - begin
                         : SampleRecord::kStackBytes;
  const bool goes_on = begin < t_readable.begin && end == t_readable.end;
  const std::uintptr_t known = goes_on ? t_readable.begin : end;
  if (may_be_own && known - begin <= kMostToLearn &&
      os::readable_bytes(begin, known - begin) == known - begin) {
    t_readable = {begin, end};
    return most;
  }
  return os::readable_bytes(begin, most);
}

// Calls visit(Cell&) for the cells where p may be, until it returns true. Whether it did.
template <class Visit>
bool for_each_probe(SampleTable& table, const void* p, Visit&& visit) {
  const std::uint64_t hash = mix(reinterpret_cast<std::uintptr_t>(p));
  auto at = static_cast<std::uint32_t>(hash);
  const auto step = static_cast<std::uint32_t>(hash >> 32) | 1;  // reaches all cells
  for (std::uint32_t i = 0; i < kProbes; i++, at += step) {
    if (visit(table.cell[at % SampleTable::kCells])) return true;
  }
  return false;
}

// False: there is no room for it.
bool enter(SampleTable& table, const void* p, SampleRecord& record) {
  return for_each_probe(table, p, [&](SampleTable::Cell& cell) {
    std::uint64_t empty = 0;
    if (!cell.address.compare_exchange_strong(empty, SampleTable::kClaimed)) return false;
    cell.record = &record;
    table.filter[filter_cell_of(p)]++;
    cell.address.store(reinterpret_cast<std::uintptr_t>(p));
    return true;
  });
}

// Pages for our own use, or null. A record comes first, the object behind it.
void* take_internal(PageCount pages, bool& zero) {
  for (;;) {
    const std::uint32_t seen = arena.chunks();
    if (void* const p = arena.take_pages(pages, kPageBytes, BlockKind::internal, zero)) return p;
    if (!arena.grow(seen, pages, kPageBytes)) return nullptr;
  }
}

void give_internal(void* pages) {
  const bool given = arena.give_pages(pages, BlockKind::internal);
  ASHLAR_ASSERT(given);
  static_cast<void>(given);
}

// In whoever's frame it is: that is where unwinding begins.
[[gnu::always_inline]] inline void fill(SampleRecord& record, void* place, Bytes bytes,
                                        Bytes requested, std::uint32_t mean_kib) {
  record.place = place;
  record.bytes = bytes;
  record.requested = requested;
  record.mean_bytes = mean_kib * kKiB;
  os::read_registers(record.registers);
  record.stack_bytes = readable_stack(record.registers.rsp);
  os::copy_unseen(record.stack, record.registers.rsp, record.stack_bytes);
}

}  // namespace

Bytes Sampler::draw(std::uint32_t mean_kib) {
  const std::uint64_t x = mix(random_.fetch_add(kStep, std::memory_order_relaxed));  // any order
  return static_cast<Bytes>(-log_of_fraction((x >> 11) + 1) * static_cast<double>(mean_kib * kKiB));
}

void* Sampler::note_slot(void* slot, Bytes slot_bytes, Bytes requested, std::uint32_t mean_kib) {
  SampleTable* const table = make_table();
  if (table == nullptr) return slot;
  table->taken++;
  bool zero = false;
  const PageCount pages{1 + pages_for(slot_bytes).v};
  if (void* const block = take_internal(pages, zero)) {
    auto* const record = static_cast<SampleRecord*>(block);
    fill(*record, slot, slot_bytes, requested, mean_kib);
    void* const p = record + 1;
    if (enter(*table, p, *record)) {
      if (const Lane* const lane = this_lane()) arena.set_bare(p, lane->slabs);
      return p;
    }
    give_internal(block);
  }
  table->lost++;
  return slot;
}

void Sampler::note_large(void* p, Bytes bytes, Bytes requested, std::uint32_t mean_kib) {
  SampleTable* const table = make_table();
  if (table == nullptr) return;
  table->taken++;
  bool zero = false;
  if (void* const block = take_internal(PageCount{1}, zero)) {
    auto* const record = static_cast<SampleRecord*>(block);
    fill(*record, p, bytes, requested, mean_kib);
    if (enter(*table, p, *record)) return;
    give_internal(block);
  }
  table->lost++;
}

void* Sampler::take_back(const void* p) {
  SampleTable::Cell* const cell = find(p);
  if (cell == nullptr || cell->record->place == p) return nullptr;
  void* const slot = cell->record->place;
  return remove(*cell, p) ? slot : nullptr;
}

void Sampler::forget_large(const void* p) {
  if (SampleTable::Cell* const cell = find(p)) static_cast<void>(remove(*cell, p));
}

// Removes what find() found. False: somebody else was quicker, who frees it, too.
bool Sampler::remove(SampleTable::Cell& cell, const void* p) {
  SampleRecord* const record = cell.record;  // before somebody else may claim the cell
  auto address = static_cast<std::uint64_t>(reinterpret_cast<std::uintptr_t>(p));
  if (!cell.address.compare_exchange_strong(address, 0)) return false;
  table_.load(std::memory_order_relaxed)->filter[filter_cell_of(p)]--;  // found there
  give_internal(record);
  return true;
}

Bytes Sampler::slot_bytes_of(const void* p) const {
  const SampleTable::Cell* const cell = find(p);
  return cell == nullptr || cell->record->place == p ? 0 : cell->record->bytes;
}

// relaxed: the hand-over of an object orders its freeing after its entry. Only who frees an object
// removes it.
SampleTable::Cell* Sampler::find(const void* p) const {
  SampleTable* const table = table_.load(std::memory_order_acquire);  // pairs with: make_table
  if (table == nullptr || table->filter[filter_cell_of(p)].load(std::memory_order_relaxed) == 0) {
    return nullptr;
  }
  SampleTable::Cell* found = nullptr;
  for_each_probe(*table, p, [&](SampleTable::Cell& cell) {
    if (cell.address.load(std::memory_order_relaxed) != reinterpret_cast<std::uintptr_t>(p)) {
      return false;
    }
    found = &cell;
    return true;
  });
  return found;
}

SampleTable* Sampler::make_table() {
  SampleTable* table = table_.load(std::memory_order_acquire);  // pairs with: the exchange below
  if (table != nullptr) return table;
  bool zero = false;
  void* const block = take_internal(pages_for(sizeof(SampleTable)), zero);
  if (block == nullptr) return nullptr;
  auto* const made = static_cast<SampleTable*>(block);
  // The kernel keeps pages that the program has locked in memory.
  if (!zero && !os::purge(block, sizeof(SampleTable))) std::memset(block, 0, sizeof(SampleTable));
  if (table_.compare_exchange_strong(table, made)) return made;
  give_internal(block);
  return table;
}

}  // namespace ashlar
