// SPDX-License-Identifier: MIT
// The samples that a target keeps, and what each pins in a snapshot.
#include <algorithm>

#include "capture.h"
#include "layout.h"

namespace ashlar::frag {

namespace {

struct alignas(Root) RootBytes {
  std::byte bytes[sizeof(Root)];
};
struct alignas(Sampler) SamplerBytes {
  std::byte bytes[sizeof(Sampler)];
};

// A SampleTable::Cell as it is read.
struct CellWords {
  std::uint64_t address;
  std::uint64_t record;
};
static_assert(sizeof(CellWords) == sizeof(SampleTable::Cell));

// The slab that an address lies in, or null.
const Slab* slab_at(const Snapshot& snapshot, std::uint64_t address) {
  if (address < snapshot.data_address) return nullptr;
  const std::uint64_t page = (address - snapshot.data_address) / kPageBytes;
  auto after = std::ranges::upper_bound(snapshot.slabs, page, {},
                                        [](const Slab& s) { return std::uint64_t{s.first_page}; });
  if (after == snapshot.slabs.begin()) return nullptr;
  --after;
  return page < after->first_page + snapshot.shape(*after).pages() ? &*after : nullptr;
}

// Whether an object of that size is live there, and what it pins; see Sample.
bool find_object(const Snapshot& snapshot, Sample& sample) {
  const Slab* const slab = slab_at(snapshot, sample.address);
  const std::uint64_t page = (sample.address - snapshot.data_address) / kPageBytes;
  if (slab == nullptr) {
    const auto block = std::ranges::lower_bound(
        snapshot.blocks, page, {}, [](const Block& b) { return std::uint64_t{b.first_page}; });
    return block != snapshot.blocks.end() && block->first_page == page &&
           block->use == PageUse::large;
  }
  const ClassShape& shape = snapshot.shape(*slab);
  const std::uint64_t slot =
      (sample.address - snapshot.data_address - slab->first_page * kPageBytes) / shape.slot_bytes;
  const bool live = slot < shape.capacity && shape.slot_bytes == sample.bytes &&
                    (snapshot.live_bits[slab->words + slot / 64] >> slot % 64 & 1) != 0;
  if (!live) return false;
  std::uint64_t resident = 0;
  for (std::uint32_t p = 0; p < shape.pages(); p++) {
    resident += snapshot.pages[slab->first_page + p].resident ? kPageBytes : 0;
  }
  const std::uint64_t used = std::uint64_t{slab->live} * shape.slot_bytes;
  const double share = static_cast<double>(sample.bytes) / static_cast<double>(used);
  sample.pinned = resident > used ? static_cast<double>(resident - used) * share : 0;
  return true;
}

}  // namespace

Samples capture_samples(Target& target, std::uint64_t root_address, const Snapshot& snapshot,
                        bool stacks) {
  RootBytes root_bytes;
  SamplerBytes sampler_bytes;
  Options settings;
  if (!target.read(root_address, root_bytes.bytes)) target.complain("its root cannot be read");
  const auto& root = *reinterpret_cast<const Root*>(root_bytes.bytes);
  if (root.magic != Root::kMagic || root.layout != layout_hash() ||
      !target.read_value(reinterpret_cast<std::uintptr_t>(root.options), settings) ||
      !target.read(reinterpret_cast<std::uintptr_t>(root.sampler), sampler_bytes.bytes)) {
    target.complain("its root cannot be read");
  }
  if (settings.sample_kib == 0) {
    target.complain("it takes no samples: start it with ASHLAR_CONF=sample_kib:512");
  }
  Samples samples;
  samples.mean_bytes = static_cast<std::uint64_t>(settings.sample_kib) * 1024;
  const auto table = reinterpret_cast<std::uintptr_t>(
      reinterpret_cast<const Sampler*>(sampler_bytes.bytes)->table().load());
  if (table == 0) return samples;  // none yet
  std::vector<CellWords> cells(SampleTable::kCells);
  if (!target.read_value(table + offsetof(SampleTable, taken), samples.taken) ||
      !target.read_value(table + offsetof(SampleTable, lost), samples.lost) ||
      !target.read(table + offsetof(SampleTable, cell), std::as_writable_bytes(std::span(cells)))) {
    target.complain("its samples cannot be read");
  }
  for (const CellWords& cell : cells) {
    if (cell.address <= SampleTable::kClaimed) continue;
    SampleRecord record;
    constexpr std::size_t kWithoutStack = offsetof(SampleRecord, registers);
    const std::span<std::byte> bytes = std::as_writable_bytes(std::span(&record, 1));
    if (!target.read(cell.record, bytes.first(stacks ? sizeof record : kWithoutStack))) continue;
    // Thinned no more than can be.
    if (record.mean_bytes < samples.mean_bytes ||
        record.mean_bytes >> SamplePace::kMostDoublings > samples.mean_bytes) {
      continue;
    }
    Sample sample;
    sample.address = reinterpret_cast<std::uintptr_t>(record.place);
    sample.bytes = record.bytes;
    sample.requested = record.requested;
    sample.mean_bytes = record.mean_bytes;
    if (sample.address < snapshot.data_address || !find_object(snapshot, sample)) continue;
    if (!stacks) {
      samples.live.push_back(std::move(sample));
      continue;
    }
    const os::Registers& r = record.registers;
    sample.registers = {r.rip, r.rsp, r.rbp, r.rbx, r.r12, r.r13, r.r14, r.r15};
    const auto length = std::min<std::uint64_t>(record.stack_bytes, SampleRecord::kStackBytes);
    sample.stack.assign(record.stack, record.stack + length);
    samples.live.push_back(std::move(sample));
  }
  return samples;
}

}  // namespace ashlar::frag
