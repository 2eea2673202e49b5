// SPDX-License-Identifier: MIT
#include "shortage.h"

#include <algorithm>
#include <cerrno>

#include "lane_room.h"
#include "os.h"

namespace ashlar::shm {

namespace {

constexpr std::uint64_t kPeriodMs = 500;

struct Use {
  std::uint64_t pages;
  std::uint64_t most;  // 0: no limit

  bool is_above(std::uint64_t tenths) const { return most != 0 && pages * 10 > most * tenths; }
  Bytes excess() const { return is_above(9) ? (pages - most * 9 / 10) * kPageBytes : 0; }
};

Use use_of_arena(ashlar_shm& arena) {
  arena.pages.refresh();
  Use use{0, std::uint64_t{arena.segment.max_chunks()} * kPagesPerChunk};
  const std::uint32_t chunks = arena.pages.chunks();
  if (!Use{std::uint64_t{chunks} * kPagesPerChunk, use.most}.is_above(8)) return use;
  for (std::uint32_t c = 0; c < chunks; c++) {
    if (arena.pages.state_of(ChunkIndex{c}).backed == 0) continue;
    use.pages += kPagesPerChunk - arena.pages.buddy().free_pages_in(ChunkIndex{c});
  }
  return use;
}

Use use_of_quota(const ashlar_shm& arena) {
  const std::uint64_t quota = arena.state().quota.load() / kPageBytes;
  return {quota == 0 ? 0 : held_pages(arena), quota};
}

// Whether it is this thread's to say, and now.
bool is_due(Shortage& shortage, bool failed) {
  const std::uint64_t now = os::now_ms();
  std::uint64_t again = shortage.again_ms.load();
  if (shortage.told.exchange(true) && now < again && !failed) return false;
  return shortage.again_ms.compare_exchange_strong(again, now + kPeriodMs);
}

}  // namespace

void look_at_memory(View& view, bool failed) {
  view.has_grown = false;
  ashlar_shm& arena = *view.arena;
  if (!arena.notices.are_wanted() || view.is_telling) return;
  const int saved_errno = errno;
  view.is_telling = true;
  const Use of_arena = use_of_arena(arena);
  const Use of_quota = use_of_quota(arena);
  if (failed || of_arena.is_above(9) || of_quota.is_above(9)) {
    const Bytes excess = std::max(of_arena.excess(), of_quota.excess());
    if (is_due(arena.shortage, failed)) {
      arena.notices.tell({ASHLAR_MEMORY_SHORT, nullptr, {}, excess, &arena});
    }
  } else if (!of_arena.is_above(8) && !of_quota.is_above(8) && arena.shortage.told.load() &&
             arena.shortage.told.exchange(false)) {
    arena.notices.tell({ASHLAR_MEMORY_ENOUGH, nullptr, {}, 0, &arena});
  }
  view.is_telling = false;
  errno = saved_errno;
}

}  // namespace ashlar::shm
