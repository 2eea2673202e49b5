// SPDX-License-Identifier: MIT
#include "victim_walk.h"

#include <cerrno>

#include "os.h"
#include "recovery.h"
#include "shortage.h"
#include "victims.h"

namespace ashlar::shm {

std::uint64_t deadline_after(std::uint64_t budget_us) {
  const std::uint64_t now = os::now_us();
  return budget_us < UINT64_MAX - now ? now + budget_us : UINT64_MAX;
}

bool is_over(std::uint64_t deadline_us) {
  return deadline_us != UINT64_MAX && os::now_us() >= deadline_us;
}

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

int VictimWalk::begin(Bytes& freed) {
  State& state = arena_.state();
  if (state.pass_at.load() != 0) return 0;
  if (!choose_victims(view_, freed)) return ENOMEM;
  state.handle_room.store(~std::uint64_t{0});
  state.pass_at.store(1);
  return 0;
}

void VictimWalk::end() {
  arena_.state().pass_at.store(0);
  arena_.state().handle_room.store(~std::uint64_t{0});
}

}  // namespace ashlar::shm
