// SPDX-License-Identifier: MIT
// The heap of a process: from its root to its lanes. The capture files alone know how the
// allocator's memory is laid out, from its own headers.
#include "capture.h"

#include <algorithm>
#include <cstring>
#include <memory>

#include "capture_chunks.h"
#include "layout.h"
#include "program_heap.h"

namespace ashlar::frag {

namespace {

// A lane has two stacks a class, of at most so many slots.
constexpr std::uint64_t kMostStackSlots = 4096;
// All lanes together.
constexpr std::uint64_t kMostCachedSlots = 1 << 27;

class Capture {
 public:
  Capture(Target& target, const Limits& limits)
      : target_(target), limits_(limits), reader_(target, snapshot_, limits.bytes) {}

  Snapshot take(std::uint64_t root_address) {
    read_root(root_address);
    if (region_ != 0) {
      read_header();
      read_chunks();
      read_lanes();
      read_heaps();
      read_residency();
    }
    target_.describe(snapshot_);
    return std::move(snapshot_);
  }

 private:
  [[noreturn]] void fail(const std::string& why) const { target_.complain("its heap " + why); }

  void read_root(std::uint64_t address) {
    alignas(Root) std::byte bytes[sizeof(Root)];
    if (!target_.read(address, bytes)) fail("has no root that can be read");
    const auto& root = *reinterpret_cast<const Root*>(bytes);
    if (root.magic != Root::kMagic) fail("has no root");
    snapshot_.release.assign(root.release, ::strnlen(root.release, sizeof root.release));
    for (char& c : snapshot_.release) {
      if (c < ' ' || c > '~') c = '?';
    }
    if (root.version != Root::kVersion || root.bytes != sizeof(Root) ||
        root.layout != layout_hash()) {
      fail("is laid out in another way: it is of release " + snapshot_.release +
           ", and this program reads " ASHLAR_VERSION " of the same build");
    }
    region_ = reinterpret_cast<std::uintptr_t>(root.region.load());
    Options options;
    if (!target_.read_value(reinterpret_cast<std::uintptr_t>(root.options), options)) {
      fail("has options that cannot be read");
    }
    snapshot_.purge_ms = options.purge_ms;
    snapshot_.magazine_kib = options.magazine_kib;
    snapshot_.sample_kib = options.sample_kib;
    snapshot_.classes = class_shapes();
  }

  void read_header() {
    alignas(ArenaHeader) std::byte bytes[sizeof(ArenaHeader)];
    if (region_ % ashlar::kPageBytes != 0 || !target_.read(region_, bytes)) {
      fail("has no arena that can be read");
    }
    const auto& header = *reinterpret_cast<const ArenaHeader*>(bytes);
    chunks_ = header.chunks.load();
    if (header.magic != ArenaHeader::kMagic || header.version != ArenaHeader::kVersion) {
      fail("has no arena where its root says");
    }
    if (header.max_chunks > Geometry::kChunkLimit || chunks_ > header.max_chunks) {
      fail("is corrupt: its arena has " + std::to_string(chunks_) + " chunks of at most " +
           std::to_string(header.max_chunks));
    }
    if (chunks_ > limits_.chunks) {
      fail("is too large: " + std::to_string(chunks_) + " chunks of 2 MiB");
    }
    const Geometry at(header.max_chunks);
    if (region_ + at.bytes(header.max_chunks) < region_)
      fail("is corrupt: it ends behind the last address");
    geometry_ = at;
    data_ = region_ + at.data;
  }

  void read_chunks() {
    if (!reader_.begin(data_, region_ + geometry_.table, chunks_)) {
      fail("has a unit table that cannot be read");
    }
    for (std::uint32_t c = 0; c < chunks_; c++) {
      const std::uint64_t address = region_ + geometry_.meta + std::uint64_t{c} * sizeof(ChunkMeta);
      if (!target_.read(address, std::as_writable_bytes(std::span(&meta_, 1)))) {
        fail("has metadata that cannot be read");
      }
      reader_.add(c, *reinterpret_cast<const ChunkMeta*>(meta_.bytes), address);
    }
    reader_.finish();
  }

  // What a heap's record begins with is where its tag says.
  void read_heaps() {
    for (Lane& lane : snapshot_.lanes) {
      if (!lane.heap) continue;
      const std::uint64_t address = lane.tag - kProgramHeapTag + offsetof(ProgramHeapHead, number);
      std::uint64_t number = 0;
      if (target_.read_value(address, number)) lane.heap = number;
    }
  }

  // A lane is an internal block of a certain length that carries its own address.
  void read_lanes() {
    for (const Block& block : snapshot_.blocks) {
      if (block.use != PageUse::internal || block.pages != kLanePages.v) continue;
      const std::uint64_t address = data_ + std::uint64_t{block.first_page} * kPageBytes;
      const auto lane_bytes = std::make_unique<LaneBytes>();
      if (!target_.read(address, std::as_writable_bytes(std::span(lane_bytes.get(), 1)))) continue;
      const auto& lane = *reinterpret_cast<const ashlar::Lane*>(lane_bytes->bytes);
      if (lane.slabs.tag != address) continue;
      const std::uint16_t index = reader_.lane_of(address);
      if (index == Slab::kNoLane) continue;
      unsigned char leased = 0;
      std::memcpy(&leased, lane_bytes->bytes + offsetof(ashlar::Lane, leased), 1);
      snapshot_.lanes[index].leased = leased == 1;
      for (std::uint32_t c = 0; c < kClassCount; c++) {
        const Magazine& m = lane.magazine[c];
        read_stack(address, index, stack(m.take_base), stack(m.take));
        read_stack(address, index, stack(m.give_base), stack(m.give));
      }
      read_stack(address, index, address + offsetof(ashlar::Lane, remote),
                 address + offsetof(ashlar::Lane, remote) +
                     sizeof(void*) *
                         std::min<std::uint32_t>(lane.remote_count, ashlar::Lane::kRemoteSlots));
    }
  }

  static std::uint64_t stack(Stack s) { return reinterpret_cast<std::uintptr_t>(s); }

  void read_stack(std::uint64_t lane, std::uint16_t index, std::uint64_t base, std::uint64_t top) {
    if (base >= top) return;
    const std::uint64_t end = lane + bytes_of(kLanePages);
    if (base % sizeof(void*) != 0 || base < lane || top > end ||
        (top - base) / sizeof(void*) > kMostStackSlots) {
      snapshot_.dropped++;
      return;
    }
    std::vector<std::uint64_t> slots((top - base) / sizeof(void*));
    cached_slots_ += slots.size();
    if (cached_slots_ > kMostCachedSlots) fail("is corrupt: its magazines hold too much");
    if (!target_.read(base, std::as_writable_bytes(std::span(slots)))) return;
    for (const std::uint64_t slot : slots) reader_.mark_cached(index, slot);
  }

  void read_residency() {
    reader_.read_residency();
    const std::uint64_t n = chunks_;
    const std::pair<std::uint64_t, std::uint64_t> zones[] = {
        {0, ashlar::kPageBytes},
        {geometry_.table, n * Geometry::kTableBytesPerChunk},
        {geometry_.summaries, n * Geometry::kSummaryBytesPerChunk},
        {geometry_.meta, n * sizeof(ChunkMeta)}};
    for (const auto& [offset, bytes] : zones) {
      add_metadata(target_, region_ + offset, align_up(bytes, kPageBytes), snapshot_);
    }
  }

  struct alignas(ChunkMeta) MetaBytes {
    std::byte bytes[sizeof(ChunkMeta)];
  };
  struct alignas(ashlar::Lane) LaneBytes {
    std::byte bytes[sizeof(ashlar::Lane)];
  };

  Target& target_;
  Limits limits_;
  Snapshot snapshot_;
  ChunkReader reader_;
  std::uint64_t cached_slots_ = 0;
  std::uint64_t region_ = 0;
  std::uint64_t data_ = 0;
  std::uint32_t chunks_ = 0;
  Geometry geometry_{0};
  MetaBytes meta_;
};

struct alignas(Root) RootBytes {
  std::byte bytes[sizeof(Root)];
};
}  // namespace

Snapshot capture(Target& target, std::uint64_t root, const Limits& limits) {
  Snapshot snapshot = std::make_unique<Capture>(target, limits)->take(root);
  if (snapshot.sample_kib > 0) {
    snapshot.rounding = rounding(capture_samples(target, root, snapshot, false));
  }
  return snapshot;
}

std::uint64_t find_arena(Target& target) {
  if (target.segment()) target.complain("it is an arena in shared memory, and no process");
  const std::vector<std::uint64_t> roots = find_roots(target);
  if (roots.empty()) {
    if (target.has_ended()) target.complain("it has ended");
    target.complain(
        "it does not run on Ashlar; start it by `ashlar run`, or with LD_PRELOAD=libashlar.so.0");
  }
  for (const std::uint64_t address : roots) {
    RootBytes root;
    const bool has_arena = target.read(address, root.bytes) &&
                           reinterpret_cast<const Root*>(root.bytes)->region.load() != nullptr;
    if (has_arena) return address;
  }
  return roots.back();
}

Snapshot capture(Target& target, const Limits& limits) {
  if (const std::optional<SegmentFile> file = target.segment()) {
    return capture_segment(target, *file, limits);
  }
  return capture(target, find_arena(target), limits);
}

}  // namespace ashlar::frag
