// SPDX-License-Identifier: MIT
// Knows how the allocator's memory is laid out, from its own headers; so does capture_samples.cpp,
// and no other file.
#include "capture.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <memory>
#include <unordered_map>

#include "layout.h"

namespace ashlar::frag {

namespace {

static_assert(kPageBytes == ashlar::kPageBytes && kPagesPerUnit == ashlar::kPagesPerUnit &&
              kPagesPerChunk == ashlar::kPagesPerChunk);

// Times a slab is read again before its bitmap is taken as it is.
constexpr int kMostReadings = 4;

// A lane has two stacks a class, of at most so many slots.
constexpr std::uint64_t kMostStackSlots = 4096;
// All lanes together.
constexpr std::uint64_t kMostCachedSlots = 1 << 27;

PageUse use_of(BlockKind kind) {
  switch (kind) {
    case BlockKind::none: return PageUse::free;
    case BlockKind::slab: return PageUse::slab;
    case BlockKind::large:
    case BlockKind::moved: return PageUse::large;
    case BlockKind::cached: return PageUse::cached;
    case BlockKind::internal: return PageUse::internal;
    case BlockKind::unmapped:
    case BlockKind::taken: return PageUse::unusable;
  }
  return PageUse::unusable;
}

class Capture {
 public:
  Capture(Target& target, const Limits& limits) : target_(target), limits_(limits) {}

  Snapshot take(std::uint64_t root_address) {
    read_root(root_address);
    if (region_ != 0) {
      read_header();
      for (std::uint32_t c = 0; c < chunks_; c++) read_chunk(c);
      finish_blocks();
      read_lanes();
      read_residency();
    }
    target_.describe(snapshot_);
    return std::move(snapshot_);
  }

 private:
  [[noreturn]] static void fail(const std::string& why) { throw Error("its heap " + why); }

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
    for (const SizeClass& c : kSizeClasses) {
      snapshot_.classes.push_back({c.slot_bytes, c.slab_bytes, c.capacity});
    }
    snapshot_.classes.push_back({kGrainBytes, kUnitBytes, kGrains});
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
    spend(std::uint64_t{chunks_} * (kPagesPerChunk + Geometry::kTableBytesPerChunk));
    snapshot_.data_address = data_;
    snapshot_.pages.resize(std::size_t{chunks_} * kPagesPerChunk);
    units_.resize(std::size_t{chunks_} * kUnitsPerChunk);
    if (!target_.read(region_ + at.table, std::as_writable_bytes(std::span(units_)))) {
      fail("has a unit table that cannot be read");
    }
  }

  void spend(std::uint64_t bytes) {
    spent_ += bytes;
    if (spent_ > limits_.bytes) {
      fail("is too large: a snapshot would take more than " + std::to_string(limits_.bytes >> 20) +
           " MiB");
    }
  }

  // --- chunks
  // -------------------------------------------------------------------------------------

  std::uint64_t meta_address(std::uint32_t chunk) const {
    return region_ + geometry_.meta + std::uint64_t{chunk} * sizeof(ChunkMeta);
  }

  void read_chunk(std::uint32_t chunk) {
    if (!target_.read(meta_address(chunk), std::as_writable_bytes(std::span(&meta_bytes_, 1)))) {
      fail("has metadata that cannot be read");
    }
    const auto& meta = *reinterpret_cast<const ChunkMeta*>(meta_bytes_.bytes);
    const std::uint32_t first = chunk * kPagesPerChunk;
    for (std::uint32_t i = 0; i < kPagesPerChunk; i++) {
      Page& page = snapshot_.pages[first + i];
      const auto bit = [&](const std::atomic<std::uint64_t>(&row)[kRowWords]) {
        return (row[i / 64].load() >> i % 64 & 1) != 0;
      };
      page.use = bit(meta.rows.free) ? PageUse::free : PageUse::internal;
      page.dirty = bit(meta.rows.dirty);
      page.aged = bit(meta.rows.aged);
      const std::uint32_t word = meta.rows.block[i].load();
      if (word != 0) add_block(first + i, BlockWord::pages(word), BlockWord::kind(word));
    }
    for (std::uint32_t u = 0; u < kUnitsPerChunk;) {
      u += read_slab(meta, UnitIndex{chunk * kUnitsPerChunk + u});
    }
  }

  void add_block(std::uint32_t first, std::uint32_t pages, BlockKind kind) {
    if (kind > BlockKind::taken || pages == 0 || pages > snapshot_.pages.size() - first ||
        (!snapshot_.blocks.empty() &&
         first - snapshot_.blocks.back().first_page < snapshot_.blocks.back().pages)) {
      snapshot_.dropped++;
      return;
    }
    spend(sizeof(Block));
    snapshot_.blocks.push_back({first, pages, use_of(kind)});
  }

  // Slabs have records of their own; pages get the use of the block they lie in.
  void finish_blocks() {
    for (const Block& block : snapshot_.blocks) {
      for (std::uint32_t i = 0; i < block.pages; i++) {
        Page& page = snapshot_.pages[block.first_page + i];
        page.use = block.use;
        page.dirty = page.aged = false;
      }
    }
    std::erase_if(snapshot_.blocks, [](const Block& b) { return b.use == PageUse::slab; });
    // A slab whose block was not there (yet, or any more) is none.
    std::erase_if(snapshot_.slabs, [&](const Slab& slab) {
      const auto* const page = &snapshot_.pages[slab.first_page];
      const bool whole = std::all_of(page, page + snapshot_.shape(slab).pages(),
                                     [](Page p) { return p.use == PageUse::slab; });
      snapshot_.dropped += whole ? 0 : 1;
      return !whole;
    });
  }

  // Returns the units to step on.
  std::uint32_t read_slab(const ChunkMeta& meta, UnitIndex unit) {
    UnitEntry entry{units_[unit.v]};
    if (entry.is_free() || entry.is_large()) return 1;  // large: its block word says the rest
    if (entry.is_mosaic()) return read_mosaic(meta, unit, entry.tag());
    if (entry.size_class().v >= kClassCount || unit.v % units_of(entry.size_class()) != 0) {
      snapshot_.dropped++;
      return 1;
    }
    const ClassIndex c = entry.size_class();
    const SizeClass& info = size_class(c);
    const std::uint32_t u = unit.v % kUnitsPerChunk;
    const bool is_short = info.words <= ChunkMeta::kShortWords;
    const BitmapWord* const free = is_short ? meta.short_free[u] : meta.long_free[u];
    const BitmapWord* const remote = is_short ? meta.short_remote[u] : meta.long_remote[u];
    Bits bits;
    bits.load(free, remote, info.words);
    std::uint32_t used = meta.slab[u].used;
    bool read_again = false;
    for (int i = 1; i < kMostReadings && used != bits.count_used(info); i++) {
      read_again = true;
      const auto* const begin = reinterpret_cast<const BitmapWord*>(&meta);
      if (!reread(unit, free - begin, remote - begin, used, bits)) break;
    }
    snapshot_.slabs_reread += read_again ? 1 : 0;
    add_slab(unit, c, entry.tag(), bits);
    return units_of(c);
  }

  // Its objects are counted as nobody's: whoever frees one in a mosaic changes its bits at once.
  std::uint32_t read_mosaic(const ChunkMeta& meta, UnitIndex unit, std::uint64_t tag) {
    const std::uint32_t u = unit.v % kUnitsPerChunk;
    spend(sizeof(Slab) + 3 * kGrainWords * sizeof(std::uint64_t));
    Slab slab;
    slab.first_page = first_page(unit).v;
    slab.size_class = kClassCount;
    slab.lane = lane_of(tag);
    slab.words = snapshot_.live_bits.size();
    slab.starts = snapshot_.start_bits.size();
    for (std::uint32_t w = 0; w < kGrainWords; w++) {
      const std::uint64_t taken = ~meta.mosaic_free[u][w].load();
      slab.live += static_cast<std::uint32_t>(std::popcount(taken));
      snapshot_.live_bits.push_back(taken);
      snapshot_.taken_bits.push_back(taken);
      snapshot_.start_bits.push_back(meta.mosaic_start[u][w].load() & taken);
    }
    if (slab.lane != Slab::kNoLane) snapshot_.lanes[slab.lane].slabs++;
    snapshot_.slabs.push_back(slab);
    return 1;
  }

  static std::uint32_t units_of(ClassIndex c) {
    return static_cast<std::uint32_t>(size_class(c).slab_bytes / kUnitBytes);
  }

  // A slab's two bitmaps.
  struct Bits {
    std::uint64_t free[ChunkMeta::kLongWords];
    std::uint64_t remote[ChunkMeta::kLongWords];

    void load(const BitmapWord* from_free, const BitmapWord* from_remote, std::uint32_t words) {
      for (std::uint32_t w = 0; w < words; w++) {
        free[w] = from_free[w].load();
        remote[w] = from_remote[w].load();
      }
    }
    static std::uint64_t slots(const SizeClass& info, std::uint32_t w) {
      return bit_range(0, w + 1 < info.words ? 64 : info.capacity - w * 64);
    }
    std::uint32_t count_used(const SizeClass& info) const {
      int n = 0;
      for (std::uint32_t w = 0; w < info.words; w++) {
        n += std::popcount(~free[w] & slots(info, w));
      }
      return static_cast<std::uint32_t>(n);
    }
  };

  // The bitmaps lie so many words into the chunk's metadata.
  bool reread(UnitIndex unit, std::ptrdiff_t free_at, std::ptrdiff_t remote_at, std::uint32_t& used,
              Bits& bits) {
    const std::uint64_t meta = meta_address(unit.v / kUnitsPerChunk);
    const std::uint32_t u = unit.v % kUnitsPerChunk;
    alignas(SlabDescriptor) std::byte descriptor[sizeof(SlabDescriptor)];
    const std::uint32_t count = size_class(UnitEntry{units_[unit.v]}.size_class()).words;
    const auto words = [&](std::uint64_t* to, std::ptrdiff_t at) {
      return target_.read(meta + static_cast<std::uint64_t>(at) * sizeof(BitmapWord),
                          std::as_writable_bytes(std::span(to, count)));
    };
    if (!words(bits.free, free_at) || !words(bits.remote, remote_at) ||
        !target_.read(meta + offsetof(ChunkMeta, slab) + u * sizeof(SlabDescriptor), descriptor)) {
      return false;
    }
    used = reinterpret_cast<const SlabDescriptor*>(descriptor)->used;
    return true;
  }

  void add_slab(UnitIndex unit, ClassIndex c, std::uint64_t tag, const Bits& bits) {
    const SizeClass& info = size_class(c);
    spend(sizeof(Slab) + 2 * info.words * sizeof(std::uint64_t));
    Slab slab;
    slab.first_page = first_page(unit).v;
    slab.size_class = static_cast<std::uint16_t>(c.v);
    slab.lane = lane_of(tag);
    slab.words = snapshot_.live_bits.size();
    for (std::uint32_t w = 0; w < info.words; w++) {
      const std::uint64_t taken = ~bits.free[w] & Bits::slots(info, w);
      const std::uint64_t pending = taken & bits.remote[w];
      slab.live += static_cast<std::uint32_t>(std::popcount(taken & ~pending));
      slab.pending += static_cast<std::uint32_t>(std::popcount(pending));
      snapshot_.live_bits.push_back(taken & ~pending);
      snapshot_.taken_bits.push_back(taken);
    }
    if (slab.lane != Slab::kNoLane) {
      Lane& lane = snapshot_.lanes[slab.lane];
      lane.slabs++;
      lane.pending += std::uint64_t{slab.pending} * info.slot_bytes;
    }
    snapshot_.slabs.push_back(slab);
  }

  std::uint16_t lane_of(std::uint64_t tag) {
    const auto [at, is_new] = lane_index_.try_emplace(tag, snapshot_.lanes.size());
    if (is_new) {
      if (snapshot_.lanes.size() < Slab::kNoLane) {
        snapshot_.lanes.push_back({.tag = tag});
      } else {
        at->second = Slab::kNoLane;
      }
    }
    return static_cast<std::uint16_t>(at->second);
  }

  // --- lanes
  // --------------------------------------------------------------------------------------

  // A lane is an internal block of a certain length that carries its own address.
  void read_lanes() {
    for (const Block& block : snapshot_.blocks) {
      if (block.use != PageUse::internal || block.pages != kLanePages.v) continue;
      const std::uint64_t address = data_ + std::uint64_t{block.first_page} * kPageBytes;
      const auto lane_bytes = std::make_unique<LaneBytes>();
      if (!target_.read(address, std::as_writable_bytes(std::span(lane_bytes.get(), 1)))) continue;
      const auto& lane = *reinterpret_cast<const ashlar::Lane*>(lane_bytes->bytes);
      if (lane.slabs.tag != address) continue;
      const std::uint16_t index = lane_of(address);
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
    for (const std::uint64_t slot : slots) mark_cached(index, slot);
  }

  // The slot leaves the live ones; if it was read as free or pending, it moved meanwhile.
  void mark_cached(std::uint16_t lane, std::uint64_t address) {
    if (address < data_ || (address - data_) / kPageBytes >= snapshot_.pages.size()) return;
    const std::uint64_t offset = address - data_;
    auto slab = std::ranges::upper_bound(snapshot_.slabs, offset / kPageBytes, {},
                                         [](const Slab& s) { return std::uint64_t{s.first_page}; });
    if (slab == snapshot_.slabs.begin()) return;
    --slab;
    const ClassShape& shape = snapshot_.shape(*slab);
    const std::uint64_t in_slab = offset - std::uint64_t{slab->first_page} * kPageBytes;
    if (in_slab >= shape.slab_bytes || in_slab % shape.slot_bytes != 0) return;
    const std::uint64_t slot = in_slab / shape.slot_bytes;
    if (slot >= shape.capacity) return;
    const std::uint32_t slots = snapshot_.slots_of_object(*slab, static_cast<std::uint32_t>(slot));
    for (std::uint64_t i = slot; i < slot + slots; i++) {
      std::uint64_t& word = snapshot_.live_bits[slab->words + i / 64];
      const std::uint64_t bit = std::uint64_t{1} << i % 64;
      if ((word & bit) == 0) continue;
      word &= ~bit;
      slab->live--;
      slab->cached++;
      snapshot_.lanes[lane].cached += shape.slot_bytes;
    }
  }

  // --- what is in memory
  // --------------------------------------------------------------------------

  void read_residency() {
    snapshot_.huge_known = target_.knows_huge_pages();
    for_residency(data_, snapshot_.pages.size() * kPageBytes, [&](std::uint64_t i, Residency r) {
      Page& page = snapshot_.pages[i];
      page.resident = r.resident;
      page.swapped = r.swapped;
      page.huge = r.huge;
    });
    const std::uint64_t n = chunks_;
    const std::pair<std::uint64_t, std::uint64_t> zones[] = {
        {0, ashlar::kPageBytes},
        {geometry_.table, n * Geometry::kTableBytesPerChunk},
        {geometry_.summaries, n * Geometry::kSummaryBytesPerChunk},
        {geometry_.meta, n * sizeof(ChunkMeta)}};
    for (const auto& [offset, bytes] : zones) {
      const std::uint64_t rounded = align_up(bytes, kPageBytes);
      snapshot_.metadata_mapped += rounded;
      for_residency(region_ + offset, rounded, [&](std::uint64_t, Residency r) {
        snapshot_.metadata_resident += r.resident ? kPageBytes : 0;
        snapshot_.metadata_swapped += r.swapped ? kPageBytes : 0;
      });
    }
  }

  template <class Visit>
  void for_residency(std::uint64_t address, std::uint64_t bytes, Visit&& visit) {
    constexpr std::uint64_t kStep = 16 * kPagesPerChunk;
    std::vector<Residency> states(kStep);
    const std::uint64_t pages = bytes / kPageBytes;
    for (std::uint64_t done = 0; done < pages;) {
      const std::span<Residency> part(states.data(), std::min(kStep, pages - done));
      target_.residency(address + done * kPageBytes, part);
      for (const Residency r : part) visit(done++, r);
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
  std::uint64_t spent_ = 0;
  std::uint64_t cached_slots_ = 0;
  std::uint64_t region_ = 0;
  std::uint64_t data_ = 0;
  std::uint32_t chunks_ = 0;
  Geometry geometry_{0};
  std::vector<std::uint64_t> units_;
  MetaBytes meta_bytes_;
  std::unordered_map<std::uint64_t, std::size_t> lane_index_;
};

struct alignas(Root) RootBytes {
  std::byte bytes[sizeof(Root)];
};
}  // namespace

Snapshot capture(Target& target, std::uint64_t root, const Limits& limits) {
  return std::make_unique<Capture>(target, limits)->take(root);
}

std::uint64_t find_arena(Target& target) {
  const std::vector<std::uint64_t> roots = find_roots(target);
  if (roots.empty()) throw Error("it does not run on Ashlar: no root found");
  for (const std::uint64_t address : roots) {
    RootBytes root;
    const bool has_arena = target.read(address, root.bytes) &&
                           reinterpret_cast<const Root*>(root.bytes)->region.load() != nullptr;
    if (has_arena) return address;
  }
  return roots.back();
}

Snapshot capture(Target& target, const Limits& limits) {
  return capture(target, find_arena(target), limits);
}

}  // namespace ashlar::frag
