// SPDX-License-Identifier: MIT
#include "stats_arena.h"

#include "slabs.h"

namespace ashlar::shm {

namespace {

// The pages of [at, at + bytes).
constexpr Bytes pages_of_range(Offset at, Bytes bytes) {
  return bytes == 0 ? 0 : align_up(at + bytes, kPageBytes) - align_down(at, kPageBytes);
}

// What has memory, of all that lies before the data and behind it.
Bytes metadata_bytes(const ashlar_shm& arena) {
  const Geometry& g = arena.segment.geometry();
  const Bytes handles = arena.state().handles_backed.load() * sizeof(HandleWord);
  if (arena.segment.fixed_size()) return g.data + handles;
  Bytes bytes = Geometry::kLaneCursors + handles +
                pages_of_range(Geometry::kLaneCursors, arena.lanes_end() * sizeof(LaneCursors));
  constexpr std::uint32_t kInPage = kPageBytes / sizeof(LaneHandles);
  for (std::uint32_t page = 0; page < kLanes / kInPage; page++) {
    bool backed = false;
    for (std::uint32_t i = 0; i < kInPage; i++) {
      backed = backed || arena.lane(page * kInPage + i).pins_end.load() != 0;
    }
    if (backed) bytes += kPageBytes;
  }
  const std::uint32_t chunks = arena.pages.chunks();
  return bytes + pages_of_range(Geometry::kChunkWords, chunks * sizeof(ChunkWord)) +
         pages_of_range(g.table, chunks * Geometry::kTableBytesPerChunk) +
         pages_of_range(g.summaries, chunks * Geometry::kSummaryBytesPerChunk) +
         pages_of_range(g.chunk_metadata, chunks * sizeof(SharedChunk));
}

}  // namespace

void collect_stats(ashlar_shm& arena, ashlar_shm_stats& stats) {
  arena.pages.refresh();
  stats = ashlar_shm_stats{};
  const std::uint32_t chunks = arena.pages.chunks();
  const Buddy::Counts counts = arena.pages.buddy().count();
  for (std::uint32_t c = 0; c < chunks; c++) {
    if (arena.pages.state_of(ChunkIndex{c}).backed != 0) stats.mapped += kChunkBytes;
  }
  for (std::uint32_t u = 0; u < chunks * kUnitsPerChunk;) {
    const SlabRef slab = SlabRef::find(arena, UnitIndex{u});
    if (!slab.exists()) {
      u++;
      continue;
    }
    const std::uint32_t used = slab.used_slots();
    stats.active += slab.info().slab_bytes;
    stats.allocated += Bytes{used} * slab.info().slot_bytes;
    stats.small_blocks += used;
    if (slab.is_for_handles()) {
      stats.handle_active += slab.info().slab_bytes;
      stats.handle_allocated += Bytes{used} * slab.info().slot_bytes;
    }
    u = slab.first().v + slab.units();
  }
  for (std::uint32_t l = 0; l < arena.lanes_end(); l++) {
    if (arena.lane(l).state.load().kind != LaneState::kLeased) continue;
    for (std::uint32_t c = 0; c < kClassCount; c++) {
      const std::uint64_t avail = arena.cursors(l).of_class[c].avail.load();
      const auto count = static_cast<std::uint32_t>(std::popcount(avail));
      stats.small_blocks -= count;
      stats.allocated -= Bytes{count} * kSizeClasses[c].slot_bytes;
    }
  }
  stats.active += counts.large_pages * kPageBytes;
  stats.allocated += counts.large_pages * kPageBytes;
  stats.large_blocks = counts.large_blocks;
  stats.free_pages = counts.free_pages * kPageBytes;
  stats.longest_run = Bytes{counts.longest_run} * kPageBytes;
  stats.max_bytes = Bytes{arena.segment.max_chunks()} * kChunkBytes;
  if (arena.segment.fixed_size()) stats.mapped = stats.max_bytes;
  stats.metadata = metadata_bytes(arena);
  stats.quota = arena.state().quota.load();
  stats.recoveries = arena.state().recoveries.load();
  stats.bad_frees = arena.state().bad_frees.load();
  for (std::uint32_t i = 0; i < arena.processes.places_end(); i++) {
    stats.processes += arena.processes.state_of(i).kind != ProcessState::kFree;
  }
  for (std::uint32_t l = 0; l < arena.lanes_end(); l++) {
    stats.lanes += arena.lane(l).state.load().kind != LaneState::kVacant;
  }
}

int for_each_process(ashlar_shm& arena, int (*visit)(const ashlar_shm_process*, void* context),
                     void* context) {
  int answer = 0;
  for (std::uint32_t i = 0; i < arena.processes.places_end() && answer == 0; i++) {
    const ProcessState state = arena.processes.state_of(i);
    if (state.kind == ProcessState::kFree) continue;
    const Process& process = arena.processes.at(i);
    ashlar_shm_process seen{};
    seen.pid = static_cast<int>(process.pid.load());
    seen.alive = !arena.processes.is_dead(i) && state.kind == ProcessState::kAttached;
    seen.scoped = state.scoped != 0;
    for (Bytes c = 0; c + 1 < sizeof seen.name; c++) seen.name[c] = process.name[c].load();
    for (std::uint32_t l = 0; l < arena.lanes_end(); l++) {
      const LaneState lane = arena.lane(l).state.load();
      if (lane.kind == LaneState::kVacant || lane.process != i) continue;
      seen.lanes++;
      seen.held += arena.lane(l).held_pages.load() * kPageBytes;
    }
    answer = visit(&seen, context);
  }
  return answer;
}

}  // namespace ashlar::shm
