// SPDX-License-Identifier: MIT
#include "capture_chunks.h"

#include <algorithm>
#include <bit>
#include <cstring>

namespace ashlar::frag {

namespace {

static_assert(kPageBytes == ashlar::kPageBytes && kPagesPerUnit == ashlar::kPagesPerUnit &&
              kPagesPerChunk == ashlar::kPagesPerChunk);

// Times a slab is read again before its bitmap is taken as it is.
constexpr int kMostReadings = 4;

PageUse use_of(BlockKind kind) {
  switch (kind) {
    case BlockKind::none: return PageUse::free;
    case BlockKind::slab: return PageUse::slab;
    case BlockKind::large: return PageUse::large;
    case BlockKind::cached: return PageUse::cached;
    case BlockKind::internal: return PageUse::internal;
    case BlockKind::unmapped:
    case BlockKind::taken: return PageUse::unusable;
  }
  return PageUse::unusable;
}

std::uint32_t units_of(ClassIndex c) {
  return static_cast<std::uint32_t>(size_class(c).slab_bytes / kUnitBytes);
}

template <class Visit>
void for_residency(Target& target, std::uint64_t address, std::uint64_t bytes, Visit&& visit) {
  constexpr std::uint64_t kStep = 16 * kPagesPerChunk;
  std::vector<Residency> states(kStep);
  const std::uint64_t pages = bytes / kPageBytes;
  for (std::uint64_t done = 0; done < pages;) {
    const std::span<Residency> part(states.data(), std::min(kStep, pages - done));
    target.residency(address + done * kPageBytes, part);
    for (const Residency r : part) visit(done++, r);
  }
}

bool bit_of(const std::atomic<std::uint64_t> (&row)[kRowWords], std::uint32_t i) {
  return (row[i / 64].load() >> i % 64 & 1) != 0;
}

}  // namespace

// A slab's two bitmaps.
struct ChunkReader::Bits {
  std::uint64_t free[ChunkMeta::kLongWords];
  std::uint64_t remote[ChunkMeta::kLongWords];

  void load(const BitmapWord* from_free, const BitmapWord* from_remote, std::uint32_t words) {
    for (std::uint32_t w = 0; w < words; w++) {
      free[w] = from_free[w].load();
      remote[w] = from_remote[w].load();
    }
  }
  // The same from `address`, where the target has the metadata that these words lie in. Sets `used`
  // to what the slab counts.
  [[nodiscard]] bool reload(Target& target, std::uint64_t address, const ChunkMeta& meta,
                            const BitmapWord* from_free, const BitmapWord* from_remote,
                            std::uint32_t words, std::uint32_t unit, std::uint32_t& used) {
    const auto read = [&](const BitmapWord* from, std::uint64_t* to) {
      const auto offset =
          reinterpret_cast<const std::byte*>(from) - reinterpret_cast<const std::byte*>(&meta);
      return target.read(address + static_cast<std::uint64_t>(offset),
                         std::as_writable_bytes(std::span(to, words)));
    };
    alignas(SlabDescriptor) std::byte descriptor[sizeof(SlabDescriptor)];
    if (!read(from_free, free) || !read(from_remote, remote) ||
        !target.read(address + offsetof(ChunkMeta, slab) + unit * sizeof(SlabDescriptor),
                     descriptor)) {
      return false;
    }
    used = reinterpret_cast<const SlabDescriptor*>(descriptor)->used;
    return true;
  }
  static std::uint64_t slots(const SizeClass& info, std::uint32_t w) {
    return bit_range(0, w + 1 < info.words ? 64 : info.capacity - w * 64);
  }
  std::uint32_t count_used(const SizeClass& info) const {
    int n = 0;
    for (std::uint32_t w = 0; w < info.words; w++) n += std::popcount(~free[w] & slots(info, w));
    return static_cast<std::uint32_t>(n);
  }
};

bool ChunkReader::begin(std::uint64_t data, std::uint64_t table, std::uint32_t chunks) {
  spend(std::uint64_t{chunks} * (kPagesPerChunk + kUnitsPerChunk * sizeof(std::uint64_t)));
  snapshot_.data_address = data;
  snapshot_.pages.resize(std::size_t{chunks} * kPagesPerChunk);
  units_.resize(std::size_t{chunks} * kUnitsPerChunk);
  return target_.read(table, std::as_writable_bytes(std::span(units_)));
}

void ChunkReader::add(std::uint32_t chunk, const ChunkMeta& meta, std::uint64_t address) {
  const std::uint32_t first = chunk * kPagesPerChunk;
  for (std::uint32_t i = 0; i < kPagesPerChunk; i++) {
    Page& page = snapshot_.pages[first + i];
    page.use = bit_of(meta.rows.free, i) ? PageUse::free : PageUse::internal;
    page.dirty = bit_of(meta.rows.dirty, i);
    page.aged = bit_of(meta.rows.aged, i);
    const std::uint32_t word = meta.rows.block[i].load();
    if (word != 0) add_block(first + i, BlockWord::pages(word), BlockWord::kind(word));
  }
  for (std::uint32_t u = 0; u < kUnitsPerChunk;) {
    u += add_unit(meta, address, UnitIndex{chunk * kUnitsPerChunk + u});
  }
}

void ChunkReader::add_block(std::uint32_t first, std::uint32_t pages, BlockKind kind) {
  if (kind > BlockKind::taken || pages == 0 || pages > snapshot_.pages.size() - first ||
      (!snapshot_.blocks.empty() &&
       first - snapshot_.blocks.back().first_page < snapshot_.blocks.back().pages)) {
    snapshot_.dropped++;
    return;
  }
  spend(sizeof(Block));
  snapshot_.blocks.push_back({.first_page = first, .pages = pages, .use = use_of(kind)});
}

void ChunkReader::finish() {
  for (const Block& block : snapshot_.blocks) {
    for (std::uint32_t i = 0; i < block.pages; i++) {
      Page& page = snapshot_.pages[block.first_page + i];
      page.use = block.use;
      page.dirty = page.aged = false;
    }
  }
  // Slabs have records of their own.
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
std::uint32_t ChunkReader::add_unit(const ChunkMeta& meta, std::uint64_t address, UnitIndex unit) {
  const UnitEntry entry{units_[unit.v]};
  if (entry.is_free()) return 1;
  if (entry.is_large()) {
    add_owner(unit, entry.tag());
    return 1;
  }
  if (entry.is_mosaic()) return add_mosaic(meta, unit, entry.tag());
  const ClassIndex c = entry.size_class();
  if (c.v >= kClassCount || unit.v % units_of(c) != 0) {
    snapshot_.dropped++;
    return 1;
  }
  const SizeClass& info = size_class(c);
  const std::uint32_t u = unit.v % kUnitsPerChunk;
  const bool is_short = info.words <= ChunkMeta::kShortWords;
  const BitmapWord* const free = is_short ? meta.short_free[u] : meta.long_free[u];
  const BitmapWord* const remote = is_short ? meta.short_remote[u] : meta.long_remote[u];
  Bits bits;
  bits.load(free, remote, info.words);
  if (address != 0) {
    std::uint32_t used = meta.slab[u].used;
    bool read_again = false;
    for (int i = 1; i < kMostReadings && used != bits.count_used(info); i++) {
      read_again = true;
      if (!bits.reload(target_, address, meta, free, remote, info.words, u, used)) break;
    }
    snapshot_.slabs_reread += read_again ? 1 : 0;
  }
  add_slab(unit, entry, bits);
  return units_of(c);
}

// Its objects are counted as nobody's: whoever frees one in a mosaic changes its bits at once.
std::uint32_t ChunkReader::add_mosaic(const ChunkMeta& meta, UnitIndex unit, std::uint64_t tag) {
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

void ChunkReader::add_slab(UnitIndex unit, UnitEntry entry, const Bits& bits) {
  const ClassIndex c = entry.size_class();
  const SizeClass& info = size_class(c);
  spend(sizeof(Slab) + 2 * info.words * sizeof(std::uint64_t));
  Slab slab;
  slab.first_page = first_page(unit).v;
  slab.size_class = static_cast<std::uint16_t>(c.v);
  slab.lane = lane_of(entry.tag());
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

// A large block is its heap's, if its block word says that there is one.
void ChunkReader::add_owner(UnitIndex unit, std::uint64_t tag) {
  const std::uint32_t first = first_page(unit).v;
  const auto block = std::ranges::lower_bound(snapshot_.blocks, first, {}, &Block::first_page);
  if (block != snapshot_.blocks.end() && block->first_page == first) block->lane = lane_of(tag);
}

std::uint16_t ChunkReader::lane_of(std::uint64_t tag) {
  const auto [at, is_new] = lane_index_.try_emplace(tag, snapshot_.lanes.size());
  if (is_new) {
    if (snapshot_.lanes.size() < Slab::kNoLane) {
      Lane& lane = snapshot_.lanes.emplace_back();
      lane.tag = tag;
      if (is_heap(tag)) lane.heap = 0;
    } else {
      at->second = Slab::kNoLane;
    }
  }
  return static_cast<std::uint16_t>(at->second);
}

void ChunkReader::mark_cached(std::uint16_t lane, std::uint64_t address) {
  const std::uint64_t offset = address - snapshot_.data_address;
  if (address < snapshot_.data_address || offset / kPageBytes >= snapshot_.pages.size()) return;
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

void ChunkReader::read_residency() {
  snapshot_.huge_known = target_.knows_huge_pages();
  if (!snapshot_.huge_known) {
    snapshot_.huge_bytes = target_.huge_bytes(
        snapshot_.data_address, snapshot_.data_address + snapshot_.pages.size() * kPageBytes);
  }
  for_residency(target_, snapshot_.data_address, snapshot_.pages.size() * kPageBytes,
                [&](std::uint64_t i, Residency r) {
                  Page& page = snapshot_.pages[i];
                  page.resident = r.resident;
                  page.swapped = r.swapped;
                  page.huge = r.huge;
                });
}

void ChunkReader::spend(std::uint64_t bytes) {
  spent_ += bytes;
  if (spent_ <= most_bytes_) return;
  target_.complain("it is too large: a snapshot would take more than " +
                   std::to_string(most_bytes_ >> 20) + " MiB");
}

void add_metadata(Target& target, std::uint64_t address, std::uint64_t bytes, Snapshot& snapshot) {
  for_residency(target, address, bytes, [&](std::uint64_t, Residency r) {
    snapshot.metadata_resident += r.resident ? kPageBytes : 0;
    snapshot.metadata_swapped += r.swapped ? kPageBytes : 0;
  });
}

std::vector<ClassShape> class_shapes() {
  std::vector<ClassShape> shapes;
  for (const SizeClass& c : kSizeClasses) {
    shapes.push_back({c.slot_bytes, c.slab_bytes, c.capacity});
  }
  shapes.push_back({kGrainBytes, kUnitBytes, kGrains});
  return shapes;
}

}  // namespace ashlar::frag
