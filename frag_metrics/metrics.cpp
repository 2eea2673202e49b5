// SPDX-License-Identifier: MIT
#include "metrics.h"

#include <algorithm>
#include <bit>

namespace ashlar::frag {

namespace {

// Set bits among [first, last) of a slab's words.
std::uint32_t count_bits(const std::uint64_t* words, std::uint32_t first, std::uint32_t last) {
  int n = 0;
  while (first < last) {
    const std::uint32_t bit = first % 64;
    const std::uint32_t count = std::min(64 - bit, last - first);
    const std::uint64_t mask = (~std::uint64_t{0} >> (64 - count)) << bit;
    n += std::popcount(words[first / 64] & mask);
    first += count;
  }
  return static_cast<std::uint32_t>(n);
}

// Bytes of page `page` of a slab that lie in slots whose bit is set.
std::uint32_t bytes_on_page(const ClassShape& shape, const std::uint64_t* words,
                            std::uint32_t page) {
  const auto begin = static_cast<std::uint32_t>(page * kPageBytes);
  const auto end = static_cast<std::uint32_t>(begin + kPageBytes);
  const std::uint32_t first_whole = (begin + shape.slot_bytes - 1) / shape.slot_bytes;
  const std::uint32_t behind_whole = std::min(end / shape.slot_bytes, shape.capacity);
  const auto is_set = [&](std::uint32_t slot) {
    return slot < shape.capacity && (words[slot / 64] >> slot % 64 & 1) != 0;
  };
  if (first_whole > behind_whole || first_whole * shape.slot_bytes >= end) {
    return is_set(begin / shape.slot_bytes) ? kPageBytes : 0;  // inside one slot
  }
  std::uint32_t bytes = count_bits(words, first_whole, behind_whole) * shape.slot_bytes;
  if (first_whole > 0 && is_set(first_whole - 1)) bytes += first_whole * shape.slot_bytes - begin;
  if (behind_whole >= first_whole && is_set(behind_whole)) {
    bytes += end - behind_whole * shape.slot_bytes;
  }
  return bytes;
}

}  // namespace

const char* check(const Snapshot& snapshot) {
  if (snapshot.pages.size() % kPagesPerChunk != 0) return "pages come in whole chunks";
  std::uint64_t behind = 0;
  for (const Slab& slab : snapshot.slabs) {
    if (slab.size_class >= snapshot.classes.size()) return "a slab has a size class";
    const ClassShape& shape = snapshot.shape(slab);
    if (slab.first_page < behind) return "slabs ascend and do not overlap";
    behind = std::uint64_t{slab.first_page} + shape.pages();
    if (behind > snapshot.pages.size()) return "a slab lies in the arena";
    if (slab.words + shape.words() > snapshot.live_bits.size()) return "a slab has its bits";
    if (snapshot.is_mosaic(slab) && slab.starts + shape.words() > snapshot.start_bits.size()) {
      return "a mosaic has its starts";
    }
    const std::uint64_t* const live = &snapshot.live_bits[slab.words];
    const std::uint64_t* const taken = &snapshot.taken_bits[slab.words];
    if (count_bits(live, 0, shape.capacity) != slab.live) return "`live` counts the live bits";
    if (count_bits(taken, 0, shape.capacity) != slab.taken()) return "`taken` counts its bits";
    for (std::uint32_t w = 0; w < shape.words(); w++) {
      if ((live[w] & ~taken[w]) != 0) return "a live slot is taken";
    }
  }
  behind = 0;
  for (const Block& block : snapshot.blocks) {
    if (block.pages == 0 || block.first_page < behind) return "blocks ascend and do not overlap";
    behind = std::uint64_t{block.first_page} + block.pages;
    if (behind > snapshot.pages.size()) return "a block lies in the arena";
  }
  if (snapshot.live_bits.size() != snapshot.taken_bits.size()) return "bitmaps are of one length";
  return nullptr;
}

std::uint32_t Snapshot::slots_of_object(const Slab& slab, std::uint32_t first) const {
  if (!is_mosaic(slab)) return 1;
  const std::uint64_t* const taken = &taken_bits[slab.words];
  const std::uint64_t* const starts = &start_bits[slab.starts];
  const auto bit = [](const std::uint64_t* words, std::uint32_t i) {
    return (words[i / 64] >> i % 64 & 1) != 0;
  };
  std::uint32_t end = first + 1;
  while (end < shape(slab).capacity && bit(taken, end) && !bit(starts, end)) end++;
  return end - first;
}

Waterfall waterfall(const Snapshot& snapshot) {
  Waterfall w;
  for (const Slab& slab : snapshot.slabs) {
    const ClassShape& shape = snapshot.shape(slab);
    w.allocated += std::uint64_t{slab.live} * shape.slot_bytes;
    w.magazines += std::uint64_t{slab.cached} * shape.slot_bytes;
    w.pending += std::uint64_t{slab.pending} * shape.slot_bytes;
    w.active += shape.slab_bytes;
  }
  w.gaps = w.active - w.allocated - w.magazines - w.pending;
  w.metadata = snapshot.metadata_resident;
  w.swapped = snapshot.metadata_swapped;
  for (const Page page : snapshot.pages) {
    w.mapped += page.use == PageUse::unusable ? 0 : kPageBytes;
    w.swapped += page.swapped ? kPageBytes : 0;
    switch (page.use) {
      case PageUse::large:
        w.allocated += kPageBytes;
        w.active += kPageBytes;
        break;
      case PageUse::cached:
        w.magazines += kPageBytes;
        w.active += kPageBytes;
        break;
      case PageUse::internal: w.metadata += page.resident ? kPageBytes : 0; break;
      case PageUse::free:
        w.free += kPageBytes;
        w.dirty += page.resident ? kPageBytes : 0;
        break;
      case PageUse::slab:
      case PageUse::unusable: break;
    }
    const bool active =
        page.use == PageUse::slab || page.use == PageUse::large || page.use == PageUse::cached;
    w.untouched += active && !page.resident ? kPageBytes : 0;
  }
  w.resident = w.active - w.untouched + w.dirty + w.metadata;
  return w;
}

namespace {

// Calls visit(bytes) for the live objects of a mosaic.
template <class Visit>
void for_each_object(const Snapshot& snapshot, const Slab& mosaic, Visit&& visit) {
  const ClassShape& shape = snapshot.shape(mosaic);
  for (std::uint32_t w = 0; w < shape.words(); w++) {
    std::uint64_t begins =
        snapshot.start_bits[mosaic.starts + w] & snapshot.live_bits[mosaic.words + w];
    for (; begins != 0; begins &= begins - 1) {
      const auto slot = w * 64 + static_cast<std::uint32_t>(std::countr_zero(begins));
      visit(std::uint64_t{snapshot.slots_of_object(mosaic, slot)} * shape.slot_bytes);
    }
  }
}

}  // namespace

std::vector<ClassMetrics> classes(const Snapshot& snapshot) {
  std::vector<ClassMetrics> all(snapshot.classes.empty() ? 0 : snapshot.classes.size() - 1);
  for (std::size_t c = 0; c < all.size(); c++) all[c].slot_bytes = snapshot.classes[c].slot_bytes;
  for (const Slab& slab : snapshot.slabs) {
    const ClassShape& shape = snapshot.shape(slab);
    if (snapshot.is_mosaic(slab)) {
      for_each_object(snapshot, slab, [&](std::uint64_t bytes) {
        const auto c = std::ranges::find(all, bytes, &ClassMetrics::slot_bytes);
        if (c != all.end()) c->in_mosaics++;
      });
      continue;
    }
    ClassMetrics& m = all[slab.size_class];
    m.slabs++;
    m.slots += shape.capacity;
    m.live += slab.live;
    m.cached += slab.cached;
    m.pending += slab.pending;
    m.active += shape.slab_bytes;
    m.free += std::uint64_t{shape.capacity - slab.live} * shape.slot_bytes;
    m.tails += shape.slab_bytes - shape.capacity * shape.slot_bytes;
    m.deciles[std::min<std::uint64_t>(std::uint64_t{slab.live} * 10 / shape.capacity, 9)]++;
    for (std::uint32_t p = 0; p < shape.pages(); p++) {
      const bool resident = snapshot.pages[slab.first_page + p].resident;
      if (resident && bytes_on_page(shape, &snapshot.live_bits[slab.words], p) == 0) {
        m.empty_pages += kPageBytes;
      }
    }
  }
  for (std::size_t c = 0; c < all.size(); c++) {
    // The smallest request that this class serves is one byte more than the class below holds.
    const std::uint32_t below = c == 0 ? 0 : all[c - 1].slot_bytes;
    const std::uint64_t objects = all[c].live + all[c].in_mosaics;
    all[c].rounding_most = objects * (all[c].slot_bytes - below - 1);
  }
  std::erase_if(all, [](const ClassMetrics& m) { return m.slabs == 0 && m.in_mosaics == 0; });
  return all;
}

Requested requested(const Snapshot& snapshot) {
  Requested r;
  r.most = waterfall(snapshot).allocated;
  std::uint64_t rounding = 0;
  for (const ClassMetrics& c : classes(snapshot)) rounding += c.rounding_most;
  for (const Block& block : snapshot.blocks) {
    rounding += block.use == PageUse::large ? kPageBytes - 1 : 0;
  }
  r.least = r.most - std::min(rounding, r.most);
  if (snapshot.rounding) {
    const double bytes = static_cast<double>(r.most) - snapshot.rounding->value;
    r.estimate = static_cast<std::uint64_t>(
        std::clamp(bytes, static_cast<double>(r.least), static_cast<double>(r.most)));
    r.deviation = static_cast<std::uint64_t>(snapshot.rounding->deviation);
  }
  return r;
}

Mosaics mosaics(const Snapshot& snapshot) {
  Mosaics m;
  for (const Slab& slab : snapshot.slabs) {
    if (!snapshot.is_mosaic(slab)) continue;
    const ClassShape& shape = snapshot.shape(slab);
    m.mosaics++;
    m.active += shape.slab_bytes;
    m.free += (shape.capacity - slab.live) * std::uint64_t{shape.slot_bytes};
    for_each_object(snapshot, slab, [&](std::uint64_t) { m.objects++; });
  }
  return m;
}

std::vector<ProgramHeapUse> program_heaps(const Snapshot& snapshot) {
  std::vector<ProgramHeapUse> of_lane(snapshot.lanes.size());
  const auto heap_of = [&](std::uint16_t lane) -> ProgramHeapUse* {
    return lane != Slab::kNoLane && snapshot.lanes[lane].heap ? &of_lane[lane] : nullptr;
  };
  for (const Slab& slab : snapshot.slabs) {
    ProgramHeapUse* const heap = heap_of(slab.lane);
    if (heap == nullptr) continue;
    const ClassShape& shape = snapshot.shape(slab);
    heap->active += shape.slab_bytes;
    heap->allocated += std::uint64_t{slab.live} * shape.slot_bytes;
    if (snapshot.is_mosaic(slab)) {
      for_each_object(snapshot, slab, [&](std::uint64_t) { heap->objects++; });
    } else {
      heap->objects += slab.live;
    }
  }
  for (const Block& block : snapshot.blocks) {
    ProgramHeapUse* const heap = heap_of(block.lane);
    if (heap == nullptr || block.use != PageUse::large) continue;
    heap->objects++;
    heap->allocated += block.pages * kPageBytes;
    heap->active += block.pages * kPageBytes;
  }
  for (std::size_t l = 0; l < of_lane.size(); l++)
    of_lane[l].number = snapshot.lanes[l].heap.value_or(0);
  std::erase_if(of_lane, [](const ProgramHeapUse& heap) { return heap.active == 0; });
  std::ranges::stable_sort(of_lane, std::ranges::greater(), &ProgramHeapUse::active);
  return of_lane;
}

std::vector<std::uint16_t> page_occupancy(const Snapshot& snapshot) {
  std::vector<std::uint16_t> bytes(snapshot.pages.size());
  for (std::size_t i = 0; i < bytes.size(); i++) {
    const PageUse use = snapshot.pages[i].use;
    bytes[i] = use == PageUse::large || use == PageUse::internal ? kPageBytes : 0;
  }
  for (const Slab& slab : snapshot.slabs) {
    const ClassShape& shape = snapshot.shape(slab);
    for (std::uint32_t p = 0; p < shape.pages(); p++) {
      bytes[slab.first_page + p] =
          static_cast<std::uint16_t>(bytes_on_page(shape, &snapshot.live_bits[slab.words], p));
    }
  }
  return bytes;
}

EmptyPages empty_pages(const Snapshot& snapshot) {
  EmptyPages pages;
  for (const Slab& slab : snapshot.slabs) {
    const ClassShape& shape = snapshot.shape(slab);
    for (std::uint32_t p = 0; p < shape.pages(); p++) {
      if (!snapshot.pages[slab.first_page + p].resident) continue;
      if (bytes_on_page(shape, &snapshot.live_bits[slab.words], p) != 0) continue;
      pages.empty += kPageBytes;
      const bool taken = bytes_on_page(shape, &snapshot.taken_bits[slab.words], p) != 0;
      pages.returnable += taken ? 0 : kPageBytes;
    }
  }
  return pages;
}

DirtyAge dirty_by_age(const Snapshot& snapshot) {
  DirtyAge dirty;
  for (const Page page : snapshot.pages) {
    if (page.use != PageUse::free || !page.resident) continue;
    (page.aged ? dirty.aged : dirty.fresh) += kPageBytes;
  }
  return dirty;
}

namespace {

template <class Visit>
void for_each_free_run(const Snapshot& snapshot, Visit&& visit) {
  for (std::size_t i = 0; i < snapshot.pages.size();) {
    const std::size_t first = i;
    while (i < snapshot.pages.size() && snapshot.pages[i].use == PageUse::free) i++;
    if (i != first) visit(std::uint64_t{i - first});
    i += i == first ? 1 : 0;
  }
}

}  // namespace

FreeRuns free_runs(const Snapshot& snapshot) {
  FreeRuns result;
  for_each_free_run(snapshot, [&](std::uint64_t pages) {
    const auto order = static_cast<std::size_t>(std::bit_width(pages) - 1);
    result.runs[order]++;
    result.pages[order] += pages;
    result.free_pages += pages;
    result.longest = std::max(result.longest, pages);
  });
  return result;
}

double unusable_free_space(const Snapshot& snapshot, std::uint64_t request_pages) {
  std::uint64_t free = 0;
  std::uint64_t usable = 0;
  for_each_free_run(snapshot, [&](std::uint64_t pages) {
    free += pages;
    usable += pages / request_pages * request_pages;
  });
  return free == 0 ? 0 : static_cast<double>(free - usable) / static_cast<double>(free);
}

namespace {

bool is_active(Page page) {
  return page.use != PageUse::free && page.use != PageUse::unusable && page.resident;
}

// The kernel says only how much there is in huge pages. A chunk that is one is wholly in memory; of
// such chunks so many are, whichever.
std::uint64_t covered_on_average(const Snapshot& snapshot) {
  std::uint64_t whole_chunks = 0;
  std::uint64_t active_pages = 0;  // in them
  for (std::uint32_t chunk = 0; chunk < snapshot.chunks(); chunk++) {
    const auto pages =
        std::span(snapshot.pages).subspan(std::size_t{chunk} * kPagesPerChunk, kPagesPerChunk);
    if (!std::ranges::all_of(pages, [](Page page) { return page.resident; })) continue;
    whole_chunks++;
    active_pages += static_cast<std::uint64_t>(std::ranges::count_if(pages, is_active));
  }
  if (whole_chunks == 0) return 0;
  const std::uint64_t huge = *snapshot.huge_bytes / (kPagesPerChunk * kPageBytes);
  return active_pages * kPageBytes * std::min(huge, whole_chunks) / whole_chunks;
}

}  // namespace

std::optional<HugePages> huge_pages(const Snapshot& snapshot) {
  if (!snapshot.huge_known && !snapshot.huge_bytes) return std::nullopt;
  HugePages result;
  for (const Page page : snapshot.pages) {
    if (!is_active(page)) continue;
    result.resident += kPageBytes;
    result.covered += page.huge ? kPageBytes : 0;
  }
  if (!snapshot.huge_known) result.covered = covered_on_average(snapshot);
  return result;
}

JohnstoneWilson johnstone_wilson(std::span<const Moment> recording) {
  JohnstoneWilson result;
  const Moment* most_live = nullptr;
  const Moment* most_resident = nullptr;
  double sum = 0;
  std::size_t counted = 0;
  const auto ratio = [](std::uint64_t a, std::uint64_t b) {
    return b == 0 ? 0 : static_cast<double>(a) / static_cast<double>(b);
  };
  for (const Moment& moment : recording) {
    if (moment.heap.allocated == 0) continue;
    sum += ratio(moment.heap.resident, moment.heap.allocated);
    counted++;
    if (most_live == nullptr || moment.heap.allocated > most_live->heap.allocated) {
      most_live = &moment;
    }
    if (most_resident == nullptr || moment.heap.resident > most_resident->heap.resident) {
      most_resident = &moment;
    }
  }
  if (counted == 0) return result;
  result.mean = sum / static_cast<double>(counted);
  result.at_most_live = ratio(most_live->heap.resident, most_live->heap.allocated);
  result.at_most_resident = ratio(most_resident->heap.resident, most_resident->heap.allocated);
  result.most_over_most = ratio(most_resident->heap.resident, most_live->heap.allocated);
  return result;
}

}  // namespace ashlar::frag
