// SPDX-License-Identifier: MIT
#include "victims.h"

#include <algorithm>
#include <cerrno>
#include <new>
#include <utility>

#include "victim_walk.h"

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

constexpr std::uint32_t kUnitsAtOnce = 512;  // between two looks at the clock
constexpr std::uint64_t kStepUs = 30;        // what they take, at most

}  // namespace

// At the beginning of memory of its own, which the tables follow.
class Victims::Ranking {
 public:
  // Null: no memory.
  static Ranking* make(ashlar_shm& arena) {
    arena.pages.refresh();
    const std::uint32_t chunks = arena.pages.chunks();
    void* const memory = map_private(bytes_for(chunks));
    return memory == nullptr ? nullptr : new (memory) Ranking(arena, chunks);
  }
  static void unmake(Ranking* ranking) {
    if (ranking != nullptr) unmap(ranking, bytes_for(ranking->chunks_));
  }
  bool is_current() const { return arena_.state().passes.load() == passes_; }

  // A piece of it. True: all are chosen.
  bool go_on(View& view, Bytes& freed) {
    switch (walk_) {
      case Walk::count:
        for_some_slabs([&](const SlabRef& slab) { count(slab); });
        if (is_at_end()) rank_chunks();
        break;
      case Walk::score:
        for_some_slabs([&](const SlabRef& slab) { of_class(slab).slabs_of[score(slab)]++; });
        if (is_at_end()) set_limits();
        break;
      case Walk::mark:
        for_some_slabs([&](const SlabRef& slab) { mark(view, slab, freed); });
        if (is_at_end()) return true;
    }
    if (is_at_end()) {
      walk_ = walk_ == Walk::count ? Walk::score : Walk::mark;
      unit_ = 0;
    }
    return false;
  }

 private:
  enum class Walk : std::uint8_t { count, score, mark };

  Ranking(ashlar_shm& arena, std::uint32_t chunks)
      : arena_(arena), chunks_(chunks), passes_(arena.state().passes.load()) {
    classes_ = reinterpret_cast<OfClass*>(this + 1);
    live_ = reinterpret_cast<std::uint32_t*>(classes_ + kClassCount);
    rank_ = reinterpret_cast<std::uint8_t*>(live_ + chunks_);
    for (std::uint32_t c = 0; c < chunks_; c++) {
      live_[c] = (kPagesPerChunk - arena_.pages.buddy().free_pages_in(ChunkIndex{c})) * kPageBytes;
    }
  }
  static Bytes bytes_for(std::uint32_t chunks) {
    return sizeof(Ranking) + kClassCount * sizeof(OfClass) + chunks * Bytes{5};
  }

  bool is_at_end() const { return unit_ >= chunks_ * kUnitsPerChunk; }
  template <class Visit>
  void for_some_slabs(Visit&& visit) {
    const std::uint32_t end = chunks_ * kUnitsPerChunk;
    const UnitIndex to{end - unit_ < kUnitsAtOnce ? end : unit_ + kUnitsAtOnce};
    unit_ = for_each_handle_slab(arena_, visit, UnitIndex{unit_}, to).v;
  }
  OfClass& of_class(const SlabRef& slab) { return classes_[slab.size_class_index().v]; }

  void count(const SlabRef& slab) {
    const std::uint32_t used = slab.used_slots();
    std::uint32_t& live = live_[chunk_of(slab.first()).v];
    live -= std::min(live, slab.info().slab_bytes - used * slab.info().slot_bytes);
    of_class(slab).used += used;
    of_class(slab).slabs++;
  }

  std::uint32_t score(const SlabRef& slab) const {
    const std::uint32_t fullness = slab.used_slots() * (kSteps - 1) / slab.info().capacity;
    return rank_[chunk_of(slab.first()).v] + fullness;
  }

  void mark(View& view, const SlabRef& slab, Bytes& freed) {
    OfClass& c = of_class(slab);
    const std::uint32_t s = score(slab);
    const bool at_limit = s == c.last && c.rest != 0;
    c.rest -= at_limit;
    const bool victim = s < c.last || at_limit;
    mark_victim(slab, victim);
    if (!victim || slab.used_slots() != 0) return;
    HeldSlab held(arena_, view.lane, slab.first());
    if (held) freed += retire_victim(arena_, held);
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

  void set_limits() {
    for (std::uint32_t i = 0; i < kClassCount; i++) {
      OfClass& c = classes_[i];
      if (c.slabs == 0) continue;
      const std::uint64_t needed = divide_up(c.used, std::uint64_t{kSizeClasses[i].capacity});
      std::uint32_t victims = c.slabs - static_cast<std::uint32_t>(needed);
      while (c.last < kScores - 1 && c.slabs_of[c.last] <= victims) victims -= c.slabs_of[c.last++];
      c.rest = victims;
    }
  }

  ashlar_shm& arena_;
  std::uint32_t chunks_;
  std::uint32_t passes_;  // of the arena, when this began
  Walk walk_ = Walk::count;
  std::uint32_t unit_ = 0;  // where the walk goes on
  OfClass* classes_ = nullptr;
  std::uint32_t* live_ = nullptr;  // bytes in use of each chunk
  std::uint8_t* rank_ = nullptr;   // of each chunk, the emptiest first
};

int Victims::choose(View& view, Deadline deadline, Bytes& freed, bool& chosen) {
  chosen = false;
  if (ranking_ != nullptr && !ranking_->is_current()) close();
  if (ranking_ == nullptr) ranking_ = Ranking::make(*view.arena);
  if (ranking_ == nullptr) return ENOMEM;
  do {
    chosen = ranking_->go_on(view, freed);
  } while (!chosen && !deadline.is_over(kStepUs));
  if (chosen) close();
  return 0;
}

void Victims::close() {
  Ranking::unmake(ranking_);
  ranking_ = nullptr;
}

}  // namespace ashlar::shm
