// SPDX-License-Identifier: MIT
#include "victims.h"

#include <algorithm>
#include <utility>

#include "processes.h"

namespace ashlar::shm {

namespace {

constexpr std::uint32_t kSteps = 128;  // of a chunk's rank, and of a slab's fullness
constexpr std::uint32_t kScores = 2 * kSteps;

struct OfClass {
  std::uint64_t used;  // slots
  std::uint32_t slabs;
  std::uint32_t slabs_of[kScores];
  std::uint32_t last;  // the score up to which slabs are victims
  std::uint32_t rest;  // how many of those with that score
};

class Ranking {
 public:
  explicit Ranking(ashlar_shm& arena) : arena_(arena), chunks_(arena.pages.chunks()) {
    memory_ = map_private(bytes());
    if (memory_ == nullptr) return;
    classes_ = static_cast<OfClass*>(memory_);
    live_ = reinterpret_cast<std::uint32_t*>(classes_ + kClassCount);
    rank_ = reinterpret_cast<std::uint8_t*>(live_ + chunks_);
  }
  ~Ranking() {
    if (memory_ != nullptr) unmap(memory_, bytes());
  }
  Ranking(const Ranking&) = delete;
  bool exists() const { return memory_ != nullptr; }

  void count() {
    for (std::uint32_t c = 0; c < chunks_; c++) {
      live_[c] = (kPagesPerChunk - arena_.pages.buddy().free_pages(ChunkIndex{c})) * kPageBytes;
    }
    for_each_slab([&](const SlabRef& slab, std::uint32_t used) {
      std::uint32_t& live = live_[chunk_of(slab.first()).v];
      live -= std::min(live, slab.info().slab_bytes - used * slab.info().slot_bytes);
      OfClass& c = classes_[slab.size_class_index().v];
      c.used += used;
      c.slabs++;
    });
    rank_chunks();
    for_each_slab([&](const SlabRef& slab, std::uint32_t used) {
      classes_[slab.size_class_index().v].slabs_of[score(slab, used)]++;
    });
    for (std::uint32_t c = 0; c < kClassCount; c++) {
      if (classes_[c].slabs != 0) set_limit(classes_[c], kSizeClasses[c].capacity);
    }
  }

  // Calls visit(slab, is_victim).
  template <class Visit>
  void decide(Visit&& visit) {
    for_each_slab([&](const SlabRef& slab, std::uint32_t used) {
      OfClass& c = classes_[slab.size_class_index().v];
      const std::uint32_t s = score(slab, used);
      const bool at_limit = s == c.last && c.rest != 0;
      c.rest -= at_limit;
      visit(slab, s < c.last || at_limit);
    });
  }

 private:
  Bytes bytes() const { return kClassCount * sizeof(OfClass) + chunks_ * Bytes{5}; }

  template <class Visit>
  void for_each_slab(Visit&& visit) const {
    for_each_handle_slab(arena_, [&](const SlabRef& slab) {
      if (chunk_of(slab.first()).v < chunks_) visit(slab, slab.used_slots());
    });
  }

  std::uint32_t score(const SlabRef& slab, std::uint32_t used) const {
    return rank_[chunk_of(slab.first()).v] + used * (kSteps - 1) / slab.info().capacity;
  }

  // Equally full ones rank by address.
  void rank_chunks() {
    constexpr std::uint32_t kGrain = kPageBytes;
    std::uint32_t next[kPagesPerChunk + 1] = {};
    for (std::uint32_t c = 0; c < chunks_; c++) next[live_[c] / kGrain]++;
    std::uint32_t before = 0;
    for (std::uint32_t& n : next) before += std::exchange(n, before);
    for (std::uint32_t c = chunks_; c-- > 0;) {
      const std::uint64_t rank = next[live_[c] / kGrain]++;
      rank_[c] = static_cast<std::uint8_t>(rank * kSteps / chunks_);
    }
  }

  static void set_limit(OfClass& c, std::uint32_t capacity) {
    std::uint32_t victims = c.slabs - static_cast<std::uint32_t>(divide_up(c.used, capacity));
    while (c.last < kScores - 1 && c.slabs_of[c.last] <= victims) victims -= c.slabs_of[c.last++];
    c.rest = victims;
  }

  ashlar_shm& arena_;
  std::uint32_t chunks_;
  void* memory_ = nullptr;
  OfClass* classes_ = nullptr;
  std::uint32_t* live_ = nullptr;  // bytes in use of each chunk
  std::uint8_t* rank_ = nullptr;   // of each chunk, the emptiest first
};

}  // namespace

bool choose_victims(View& view, Bytes& freed) {
  ashlar_shm& arena = *view.arena;
  arena.pages.refresh();
  Ranking ranking(arena);
  if (!ranking.exists()) return false;
  ranking.count();
  ranking.decide([&](const SlabRef& slab, bool victim) {
    mark_victim(slab, victim);
    if (!victim || slab.used_slots() != 0) return;
    const Bytes slab_bytes = slab.info().slab_bytes;
    HeldSlab held(arena, view.lane, slab.first());
    if (held && held.is_empty() && held.retire()) freed += slab_bytes;
  });
  return true;
}

}  // namespace ashlar::shm
