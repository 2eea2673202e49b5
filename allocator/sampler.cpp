// SPDX-License-Identifier: MIT
#include "sampler.h"

#include <bit>
#include <cstring>

#include "thread_cache.h"

namespace ashlar {

constinit Sampler sampler;

namespace {

// An address has its place in the index within so many words from where its hash says.
constexpr std::uint32_t kProbes = 32;

std::uint64_t mix(std::uint64_t x) {  // splitmix64 (Steele, Lea, Flood 2014)
  x = (x ^ x >> 30) * 0xbf58'476d'1ce4'e5b9;
  x = (x ^ x >> 27) * 0x94d0'49bb'1331'11eb;
  return x ^ x >> 31;
}

constexpr std::uint64_t kStep = 0x9e37'79b9'7f4a'7c15;  // 2^64 over the golden ratio

// Where an address has its cell in the filter: Fibonacci hashing, as it is done for every slot.
std::uint32_t cell_of(const void* p) {
  static_assert(SampleTable::kFilterCells == 1 << 16);
  return static_cast<std::uint32_t>(reinterpret_cast<std::uintptr_t>(p) * kStep >> 48);
}

std::uint32_t unit_cell_of(const void* p) {
  return static_cast<std::uint32_t>(reinterpret_cast<std::uintptr_t>(p) / kUnitBytes %
                                    SampleTable::kUnitCells);
}

// There is one sample more, or less, of an object of that size at p.
void count(SampleTable& table, const void* p, Bytes bytes, int change) {
  const std::uint32_t c = bytes <= kMaxSlotBytes ? class_for(bytes).v : kClassCount;
  table.filter[cell_of(p)] += static_cast<std::uint8_t>(change);
  table.in_unit[unit_cell_of(p)] += static_cast<std::uint16_t>(change);
  table.live[c] += static_cast<std::uint32_t>(change);
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

// What lies from the stack pointer on. A thread's own stack ends at its thread-local variables;
// another's may lie behind them, and be unmapped while we copy.
Bytes copy_stack(SampleRecord& record) {
  const std::uint64_t begin = record.registers.rsp;
  const auto end = reinterpret_cast<std::uintptr_t>(&t_lane_distance);
  const Bytes most = end > begin && end - begin < SampleRecord::kStackBytes
                         ? end - begin
                         : SampleRecord::kStackBytes;
  return os::copy_readable(record.stack, reinterpret_cast<const void*>(begin), most);
}

template <class Visit>
void for_each_probe(const void* p, Visit&& visit) {
  const auto first = static_cast<std::uint32_t>(mix(reinterpret_cast<std::uintptr_t>(p)));
  for (std::uint32_t i = 0; i < kProbes; i++) {
    if (visit((first + i) % SampleTable::kRecords)) return;
  }
}

}  // namespace

Bytes Sampler::draw() {
  const std::uint64_t x = mix(random_.fetch_add(kStep, std::memory_order_relaxed));  // any order
  const double distance = -log_of_fraction((x >> 11) + 1) *
                          static_cast<double>(options.sample_kib) * static_cast<double>(kKiB);
  return static_cast<Bytes>(distance);
}

void* Sampler::note(void* p, Bytes bytes, Bytes requested) {
  SampleTable* const table = make_table();
  if (table == nullptr) return p;
  table->taken++;
  bool kept = false;
  for_each_probe(p, [&](std::uint32_t i) {
    std::uint64_t empty = 0;
    if (!table->address[i].compare_exchange_strong(empty, SampleTable::kClaimed)) return false;
    SampleRecord& record = table->record[i];
    record.bytes = bytes;
    record.requested = requested;
    os::read_registers(record.registers);
    record.stack_bytes = copy_stack(record);
    count(*table, p, bytes, 1);
    table->address[i].store(reinterpret_cast<std::uintptr_t>(p));
    kept = true;
    return true;
  });
  if (!kept) table->lost++;
  return p;
}

void Sampler::follow(const void* from, const void* to) {
  SampleTable* const table = table_.load(std::memory_order_acquire);  // pairs with: make_table
  // relaxed: as in forget
  if (table == nullptr || table->filter[cell_of(from)].load(std::memory_order_relaxed) == 0) return;
  for_each_probe(from, [&](std::uint32_t i) {
    if (table->address[i].load() != reinterpret_cast<std::uintptr_t>(from)) return false;
    for_each_probe(to, [&](std::uint32_t k) {
      std::uint64_t empty = 0;
      if (!table->address[k].compare_exchange_strong(empty, SampleTable::kClaimed)) return false;
      std::memcpy(&table->record[k], &table->record[i], sizeof table->record[k]);
      count(*table, to, table->record[k].bytes, 1);
      table->address[k].store(reinterpret_cast<std::uintptr_t>(to));
      return true;
    });
    return true;
  });
}

// relaxed here and below: the hand-over of an object orders its freeing after its note()
void Sampler::forget(void* const* slots, std::uint32_t count, ClassIndex c) {
  SampleTable* const table = table_.load(std::memory_order_acquire);  // pairs with: make_table
  if (table == nullptr || table->live[c.v].load(std::memory_order_relaxed) == 0) return;
  forget_some(*table, slots, count);
}

void Sampler::forget(void* const* slots, std::uint32_t count) {
  SampleTable* const table = table_.load(std::memory_order_acquire);  // pairs with: make_table
  if (table != nullptr) forget_some(*table, slots, count);
}

void Sampler::forget_some(SampleTable& table, void* const* slots, std::uint32_t count) {
  const auto in_unit = [&](std::uint32_t i) {
    return table.in_unit[unit_cell_of(slots[i])].load(std::memory_order_relaxed);
  };
  std::uint32_t i = 0;
  for (; i + 4 <= count; i += 4) {  // one branch for four
    if ((in_unit(i) | in_unit(i + 1) | in_unit(i + 2) | in_unit(i + 3)) == 0) [[likely]]
      continue;
    for (std::uint32_t k = i; k < i + 4; k++) forget_one(table, slots[k]);
  }
  for (; i < count; i++) forget_one(table, slots[i]);
}

void Sampler::forget_one(SampleTable& table, const void* p) {
  if (table.filter[cell_of(p)].load(std::memory_order_relaxed) == 0) return;
  for_each_probe(p, [&](std::uint32_t at) {
    auto address = static_cast<std::uint64_t>(reinterpret_cast<std::uintptr_t>(p));
    if (table.address[at].load(std::memory_order_relaxed) != address) return false;
    const Bytes bytes = table.record[at].bytes;  // before somebody else may claim the record
    if (!table.address[at].compare_exchange_strong(address, 0)) return false;
    count(table, p, bytes, -1);
    return true;
  });
}

SampleTable* Sampler::make_table() {
  SampleTable* table = table_.load(std::memory_order_acquire);  // pairs with: the exchange below
  if (table != nullptr) return table;
  const PageCount pages = pages_for(sizeof(SampleTable));
  bool zero = false;
  void* block = nullptr;
  for (std::uint32_t seen = arena.chunks();; seen = arena.chunks()) {
    block = arena.take_pages(pages, kPageBytes, BlockKind::internal, zero);
    if (block != nullptr) break;
    if (!arena.grow(seen, pages, kPageBytes)) return nullptr;
  }
  auto* const made = static_cast<SampleTable*>(block);
  if (!zero) os::purge(block, sizeof(SampleTable));
  made->mean_bytes = static_cast<std::uint64_t>(options.sample_kib) * kKiB;
  if (table_.compare_exchange_strong(table, made)) return made;
  static_cast<void>(arena.give_pages(block, BlockKind::internal));
  return table;
}

}  // namespace ashlar
