// SPDX-License-Identifier: MIT
#include "plan.h"

#include <cerrno>
#include <new>

#include "lane_lists.h"
#include "lane_room.h"
#include "os.h"
#include "ranking.h"
#include "views.h"

namespace ashlar::shm {

namespace {

constexpr std::uint64_t kLeastPeriodMs = 100;
// A plan may cost so small a part of the time.
constexpr std::uint64_t kPeriodPerCost = 100;

template <class Visit>
void for_each_slab_of_blocks(const ashlar_shm& arena, Visit&& visit) {
  for_each_slab(
      arena, [](std::uint64_t tag) { return lane_of_tag(tag) < kLanes; }, visit, UnitIndex{0},
      end_of_units(arena));
}

SlabFill fill_of(const SlabRef& slab) { return {slab.size_class_index(), slab.used_slots()}; }

// The arena's maximum: most of it is never touched.
std::uint32_t most_units(const ashlar_shm& arena) {
  return arena.segment.max_chunks() * kUnitsPerChunk;
}

}  // namespace

void Plan::renew(ashlar_shm& arena) {
  const std::uint64_t begin = os::now_ms();
  std::uint64_t due = due_ms_.load();
  if (begin < due || !due_ms_.compare_exchange_strong(due, begin + kLeastPeriodMs)) return;
  const int saved_errno = errno;
  make(arena);
  errno = saved_errno;
  const std::uint64_t end = os::now_ms();
  const std::uint64_t rest = (end - begin) * kPeriodPerCost;
  due_ms_.store(end + (rest > kLeastPeriodMs ? rest : kLeastPeriodMs));
}

void Plan::make(ashlar_shm& arena) {
  View* const view = view_for_thread(arena);
  if (view == nullptr || !has_table(arena)) return;
  arena.pages.refresh();
  void* const memory = map_private(sizeof(Ranking));
  if (memory == nullptr) return;
  // What lies at cursors would look used, and be handed out from slabs that are to be emptied.
  rest_cursors(*view);
  adopt_vacant(*view);
  Ranking& ranking = *new (memory) Ranking;
  for_each_slab_of_blocks(
      arena, [&](const SlabRef& slab) { ranking.count(fill_of(slab), slab.tag() == view->tag); });
  ranking.choose();
  scores_.set(UnitIndex{0}, arena.pages.chunks() * kUnitsPerChunk, 0);
  for_each_slab_of_blocks(arena, [&](const SlabRef& slab) {
    scores_.set(slab.first(), slab.units(), ranking.score(fill_of(slab)));
  });
  unmap(memory, sizeof(Ranking));
  make_lists(*view);
}

bool Plan::has_table(const ashlar_shm& arena) {
  if (table_.load() != nullptr) return true;
  const Bytes bytes = UnitScores::bytes_for(most_units(arena));
  auto* const table = static_cast<UnitScores::Table*>(map_private(bytes));
  if (table == nullptr) return false;
  UnitScores::Table* none = nullptr;
  if (table_.compare_exchange_strong(none, table)) {
    scores_.use(*table, most_units(arena));
  } else {
    unmap(table, bytes);
  }
  return true;
}

void Plan::close() {
  UnitScores::Table* const table = table_.exchange(nullptr);
  if (table != nullptr) unmap(table, UnitScores::bytes_for(table->units));
}

}  // namespace ashlar::shm
