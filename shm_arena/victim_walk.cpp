// SPDX-License-Identifier: MIT
#include "victim_walk.h"

#include <cerrno>

#include "recovery.h"
#include "shortage.h"

namespace ashlar::shm {

namespace {

// The chunk goes, if it is all free and none is going. It is written down first: who dies then
// leaves at worst a chunk that stays.
void leave(ashlar_shm& arena, ChunkIndex chunk, std::uint32_t lane) {
  State& state = arena.state();
  const bool is_free = arena.pages.buddy().free_pages_in(chunk) == kPagesPerChunk;
  if (!is_free || state.leaving_chunk.load() != 0) return;
  state.leaving_pieces.store(0);
  state.leaving_chunk.store(chunk.v + 1);
  if (!arena.pages.leave_chunk(chunk, lane)) state.leaving_chunk.store(0);
}

}  // namespace

int VictimWalk::claim(View& view) {
  ashlar_shm& arena = *view.arena;
  std::atomic<std::uint32_t>& compactor = arena.state().compactor;
  const auto try_claim = [&] {
    std::uint32_t nobody = 0;
    return compactor.compare_exchange_strong(nobody, view.lane + 1);
  };
  if (!try_claim() && (recover_dead(arena) == 0 || !try_claim())) return EBUSY;
  arena.hand_pass.lane.store(0);  // that a thread which had this lane never ended
  arena.notices.tell({ASHLAR_PASS_BEGINS, nullptr, {}, 0, &arena});
  return 0;
}

void VictimWalk::let_go(View& view, const ashlar_moved& done, ashlar_moved& moved) {
  ashlar_shm& arena = *view.arena;
  arena.state().compactor.store(0);
  moved.objects += done.objects;
  moved.bytes += done.bytes;
  moved.skipped += done.skipped;
  moved.freed += done.freed;
  arena.notices.tell({ASHLAR_PASS_ENDED, nullptr, done, 0, &arena});
  look_at_memory(view);
}

int VictimWalk::begin(Deadline deadline, Bytes& freed) {
  State& state = arena_.state();
  if (state.pass_at.load() != 0) return 0;
  bool chosen = false;
  const int error = arena_.victims.choose(view_, deadline, freed, chosen);
  if (error != 0 || !chosen) return error;
  state.passes++;
  state.handle_room.store(~std::uint64_t{0});
  state.pass_at.store(1);
  return 0;
}

Bytes retire_victim(ashlar_shm& arena, HeldSlab& slab) {
  const Bytes bytes = slab->info().slab_bytes;
  const ChunkIndex chunk = chunk_of(slab->first());
  const std::uint32_t lane = slab.lane();
  if (!slab.is_empty() || !slab.retire(true)) return 0;
  leave(arena, chunk, lane);
  return bytes;
}

bool VictimWalk::drop_leaving_chunk() {
  State& state = arena_.state();
  for (;;) {
    const ChunkIndex chunk{state.leaving_chunk.load() - 1};
    const std::uint32_t pieces = state.leaving_pieces.load();
    if (chunk.v == kNone) return true;
    if (has_begun_ && is_spent(kPieceUs)) return false;
    has_begun_ = true;
    if (arena_.pages.drop_piece(chunk, pieces, view_.lane)) {
      state.leaving_pieces.store(pieces + 1);
    } else {
      state.leaving_chunk.store(0);
    }
  }
}

// Chunks that were emptied while another one was leaving go last. False: the budget is spent
// before.
bool VictimWalk::end() {
  for (std::uint32_t c = 0; c < arena_.pages.chunks(); c++) {
    leave(arena_, ChunkIndex{c}, view_.lane);
    if (!drop_leaving_chunk()) return false;
  }
  arena_.state().pass_at.store(0);
  arena_.state().handle_room.store(~std::uint64_t{0});
  return true;
}

}  // namespace ashlar::shm
