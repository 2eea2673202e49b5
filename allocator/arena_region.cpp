// SPDX-License-Identifier: MIT
// How an arena lies in its region: making it and growing it.
#include "arena_layout.h"
#include "options.h"

namespace ashlar {

namespace {

std::uint32_t chunks_in(Bytes region_bytes) {
  constexpr Bytes kBytesPerChunk = kChunkBytes + sizeof(ChunkMeta) + Geometry::kTableBytesPerChunk +
                                   Geometry::kSummaryBytesPerChunk;
  const Bytes estimate = region_bytes / kBytesPerChunk;
  auto chunks = static_cast<std::uint32_t>(
      estimate < Geometry::kChunkLimit ? estimate : Geometry::kChunkLimit);
  while (chunks > 0 && Geometry(chunks).bytes(chunks) > region_bytes) chunks--;
  return chunks;
}

// Growing in larger steps as the arena grows keeps the calls few and mappings whole.
constexpr std::uint32_t kMostChunksAhead = 16;

// The first chunks never get huge pages, also where the system's setting is `always`.
constexpr std::uint32_t kSmallPageChunks = 4;
// A heap has grown when it has so many.
constexpr std::uint32_t kFirstHugeChunk = 64 * kMiB / kChunkBytes;

}  // namespace

std::uint32_t Arena::chunks() const {
  return header_->chunks.load(std::memory_order_acquire);  // pairs with: grow_locked
}

Bytes Arena::region_bytes(std::uint32_t chunks) { return Geometry(chunks).bytes(chunks); }

Bytes Arena::metadata_bytes() const {
  const Bytes n = chunks();
  return kPageBytes + align_up(n * Geometry::kTableBytesPerChunk, kPageBytes) +
         align_up(n * Geometry::kSummaryBytesPerChunk, kPageBytes) + n * sizeof(ChunkMeta);
}

Bytes Arena::resident_metadata() const {
  const Bytes n = chunks();
  const Geometry at(header_->max_chunks);
  return os::resident_bytes(region_.base, kPageBytes) +
         os::resident_bytes(region_.base + at.table, n * Geometry::kTableBytesPerChunk) +
         os::resident_bytes(region_.base + at.summaries, n * Geometry::kSummaryBytesPerChunk) +
         os::resident_bytes(meta_, n * sizeof(ChunkMeta));
}

Bytes Arena::resident_data() const { return os::resident_bytes(data_, data_bytes()); }

os::Commit Arena::create(const os::Region& region) {
  const std::uint32_t max_chunks = chunks_in(region.bytes);
  if (max_chunks == 0) return os::Commit::no_memory;
  const os::Commit committed = region.commit(0, kPageBytes);
  if (committed != os::Commit::done) return committed;
  auto* const header = reinterpret_cast<ArenaHeader*>(region.base);
  header->magic = ArenaHeader::kMagic;
  header->version = ArenaHeader::kVersion;
  header->max_chunks = max_chunks;
  header->chunks.store(0);
  attach(region);
  return grow_locked(1) ? os::Commit::done : os::Commit::no_memory;
}

void Arena::attach(const os::Region& region) {
  region_ = region;
  header_ = reinterpret_cast<ArenaHeader*>(region.base);
  ASHLAR_ASSERT(header_->magic == ArenaHeader::kMagic && header_->version == ArenaHeader::kVersion);
  const Geometry at(header_->max_chunks);
  units_ = UnitTable{reinterpret_cast<std::atomic<std::uint64_t>*>(region.base + at.table)};
  meta_ = reinterpret_cast<ChunkMeta*>(region.base + at.meta);
  data_ = region.base + at.data;
  buddy_ = Buddy{reinterpret_cast<std::byte*>(&meta_->rows), sizeof(ChunkMeta),
                 reinterpret_cast<std::atomic<std::uint32_t>*>(region.base + at.summaries),
                 &header_->chunks, &header_->totals};
  buddy_.use_groups(header_->groups, ArenaHeader::kGroups);
  refresh();
}

// Frees of what lies in the new chunks must find them, so this view learns of them first.
void Arena::publish_chunks(std::uint32_t count) {
  data_bytes_.store(Bytes{count} * kChunkBytes);
  header_->chunks.store(count, std::memory_order_release);  // pairs with: chunks
}

void Arena::refresh() { data_bytes_.store(Bytes{chunks()} * kChunkBytes); }

bool Arena::grow(std::uint32_t seen, PageCount pages, Bytes alignment) {
  growth_lock_.lock();
  // Alignments above a chunk may waste up to themselves in front of the block.
  const Bytes slack = alignment > kChunkBytes ? alignment - kChunkBytes : 0;
  const Bytes chunks_needed = divide_up(bytes_of(pages) + slack, kChunkBytes);
  const bool grown = chunks() != seen || grow_locked(static_cast<std::uint32_t>(chunks_needed));
  growth_lock_.unlock();
  return grown;
}

// Adds `needed` chunks in a row, more if that is easy.
bool Arena::grow_locked(std::uint32_t needed) {
  bool unmapped = false;
  for (;;) {
    const std::uint32_t first = chunks();
    if (growing_to_ > first) {
      // The thread that was adding these exists in our parent process only. Nobody has seen the
      // chunks yet, and whatever is mapped there is ours.
      if (add_chunks(first, growing_to_ - first, true) != os::Commit::done) return false;
      if (chunks() - first >= needed) return true;
      continue;
    }
    const std::uint32_t missing = needed - remap_chunks(needed);
    if (missing == 0) return true;
    if (missing > header_->max_chunks - first) return false;
    std::uint32_t ahead = first / 16 < kMostChunksAhead ? first / 16 : kMostChunksAhead;
    if (ahead > header_->max_chunks - first - missing) ahead = 0;

    os::Commit added = add_chunks(first, missing + ahead, false);
    if (added != os::Commit::done && ahead != 0) added = add_chunks(first, missing, false);
    if (added == os::Commit::done) return true;
    if (added == os::Commit::taken) {
      if (!add_taken_chunk(first)) return false;
    } else {
      if (unmapped || !unmap_free_chunks()) return false;
      unmapped = true;
    }
  }
}

os::Commit Arena::add_chunks(std::uint32_t first, std::uint32_t count, bool replace) {
  growing_to_ = first + count;
  os::Commit result = commit_metadata(first, count, replace);
  if (result == os::Commit::done) {
    result = region_.commit(chunk_offset(first), Bytes{count} * kChunkBytes, replace);
    if (result == os::Commit::done && region_.is_ours()) choose_pages(first, count);
  }
  if (result == os::Commit::done) {
    buddy_.add_chunks(ChunkIndex{first}, count);
    publish_chunks(first + count);
  }
  growing_to_ = 0;
  return result;
}

// Small or huge pages for new chunks.
void Arena::choose_pages(std::uint32_t first, std::uint32_t count) const {
  void* const address = region_.base + chunk_offset(first);
  if (may_be_huge(ChunkIndex{first})) {
    os::ask_for_huge_pages(address, Bytes{count} * kChunkBytes);
  } else if (options.thp == kHugePagesNever || first < kSmallPageChunks) {
    os::forbid_huge_pages(address, Bytes{count} * kChunkBytes);
  }
}

bool Arena::may_be_huge(ChunkIndex chunk) const {
  return options.thp == kHugePagesAlways && chunk.v >= kFirstHugeChunk;
}

// A chunk whose addresses somebody else has taken is counted and never used.
bool Arena::add_taken_chunk(std::uint32_t chunk) {
  if (commit_metadata(chunk, 1, false) != os::Commit::done) return false;
  buddy_.add_taken_chunk(ChunkIndex{chunk});
  publish_chunks(chunk + 1);
  return true;
}

// Memory or address space is short: chunks that are all free make room for a run that none of
// them can hold. True if there were any.
bool Arena::unmap_free_chunks() {
  if (!region_.is_ours()) return false;
  bool any = false;
  for (std::uint32_t c = 0; c < chunks(); c++) {
    const PageIndex first = first_page(ChunkIndex{c});
    if (!buddy_.retire_chunk(ChunkIndex{c})) continue;
    if (!region_.decommit(chunk_offset(c), kChunkBytes)) {
      const bool given = buddy_.give(first, BlockKind::unmapped);
      ASHLAR_ASSERT(given);
      static_cast<void>(given);
      continue;
    }
    set_torn(first, PageCount{kPagesPerChunk}, false);
    unmapped_chunks_++;
    any = true;
  }
  return any;
}

// Maps unmapped chunks again: `needed` in a row, or those at the arena's end, so that fewer must
// be added to them. Returns how many.
std::uint32_t Arena::remap_chunks(std::uint32_t needed) {
  std::uint32_t run = 0;
  for (std::uint32_t c = 0; c < chunks() && unmapped_chunks_ != 0; c++) {
    const bool unmapped = buddy_.kind_at(first_page(ChunkIndex{c})) == BlockKind::unmapped;
    run = unmapped ? run + 1 : 0;
    if (run == 0 || (run < needed && c + 1 < chunks())) continue;
    const std::uint32_t first = c + 1 - run;
    const os::Commit committed = region_.commit(chunk_offset(first), run * kChunkBytes);
    if (committed == os::Commit::no_memory) return 0;
    if (committed == os::Commit::done) {
      for (std::uint32_t i = 0; i < run; i++) choose_pages(first + i, 1);
      unmapped_chunks_ -= run;
      buddy_.revive_chunks(ChunkIndex{first}, run);
      return run;
    }
    run = 0;  // somebody took a part of it; another run may do
  }
  return 0;
}

os::Commit Arena::commit_metadata(std::uint32_t first, std::uint32_t count, bool replace) {
  const std::uint32_t from = first > metadata_chunks_ ? first : metadata_chunks_;
  const std::uint32_t to = first + count;
  if (to <= from) return os::Commit::done;
  const Geometry at(header_->max_chunks);
  struct Range {
    Bytes begin, end;
  };
  // Of a zone, the pages that only the new chunks need.
  const auto pages_of = [&](Bytes zone, Bytes bytes_per_chunk) -> Range {
    return {align_up(zone + from * bytes_per_chunk, kPageBytes),
            align_up(zone + to * bytes_per_chunk, kPageBytes)};
  };
  const Range ranges[] = {pages_of(at.table, Geometry::kTableBytesPerChunk),
                          pages_of(at.summaries, Geometry::kSummaryBytesPerChunk),
                          pages_of(at.meta, sizeof(ChunkMeta))};
  for (const Range& range : ranges) {
    const os::Commit result = region_.commit(range.begin, range.end - range.begin, replace);
    if (result == os::Commit::done) continue;
    for (const Range* done = ranges; done != &range; done++) {
      region_.decommit(done->begin, done->end - done->begin);
    }
    return result;
  }
  metadata_chunks_ = to;
  return os::Commit::done;
}

}  // namespace ashlar
