// SPDX-License-Identifier: MIT
#include "movable_pool.h"

#include <cerrno>
#include <cstring>
#include <new>

#include "check.h"
#include "compact.h"
#include "notices.h"
#include "objects.h"

namespace ashlar {

namespace {

// The pools that this thread is in passes of, the last first: a forked child has this from the
// thread that forked.
constinit thread_local MovablePool* t_passes_of __attribute__((tls_model("initial-exec"))) =
    nullptr;

constexpr std::size_t kMovesAtOnce = 64;  // in compact()

}  // namespace

// In front of every object.
struct MovablePool::Header {
  enum : std::uint32_t {
    kNone = 0,
    kSettled = 1,
    kLeaving = 2,
    kArriving = 3,
    kGiven = 4,  // besides: while it was on its way
    kPin = 8     // one of the pins that are counted above
  };
  static constexpr std::uint32_t place_of(std::uint32_t state) { return state % kGiven; }
  bool is_given() const { return (state.load() & kGiven) != 0; }

  std::uint64_t tag;                 // const while the object lives
  std::atomic<std::uint32_t> state;  // atomic: any → any
};

MovablePool::Header& MovablePool::header(const void* object) {
  static_assert(sizeof(Header) == kMinAlignment);
  return *(static_cast<Header*>(const_cast<void*>(object)) - 1);
}

MovablePool::Header& MovablePool::checked_header(const void* object, const char* caller) const {
  Header& h = header(object);
  heap_->usable_bytes(&h, caller);
  if (h.state.load() == Header::kNone) refuse(caller, object, " was freed already");
  return h;
}

// --- its life -----------------------------------------------------------------------------------

MovablePool& MovablePool::of(ashlar_pool* handle, const char* caller) {
  auto* const pool = reinterpret_cast<MovablePool*>(handle);
  if (!arena.contains(pool) || pool->magic_.load() != kMagic)
    refuse(caller, handle, " is not a pool, or not any more");
  return *pool;
}

MovablePool& MovablePool::with_tags(ashlar_pool* handle, const char* caller) {
  MovablePool& pool = of(handle, caller);
  if (pool.names_ != nullptr) refuse(caller, handle, " is a pool of objects with handles");
  return pool;
}

MovablePool* MovablePool::create(ashlar_relocate* relocate, void* context, Names* names) {
  ProgramHeap* const heap = program_heaps.create({});
  if (heap == nullptr) return nullptr;
  void* const place = allocate(sizeof(MovablePool));
  if (place == nullptr) {
    program_heaps.destroy(heap->handle());
    return nullptr;
  }
  auto* const pool = new (place) MovablePool;
  pool->heap_ = heap;
  pool->relocate_ = relocate;
  pool->context_ = context;
  pool->names_ = names;
  return pool;
}

void MovablePool::destroy() {
  if (magic_.exchange(0) != kMagic)
    refuse("ashlar_pool_destroy", this, " is not a pool, or not any more");
  leave_pass();  // that nobody ended
  program_heaps.destroy(heap_->handle());
  give_slot(this, "ashlar_pool_destroy");
}

// --- objects ------------------------------------------------------------------------------------

void* MovablePool::take(Bytes bytes, std::uint64_t tag) {
  if (bytes > kMostObjectBytes) return out_of_memory();
  const auto settle = [](void* slot, const void* its_tag) {
    new (slot) Header{*static_cast<const std::uint64_t*>(its_tag), Header::kSettled};
  };
  void* const slot = heap_->take(bytes + sizeof(Header), kMinAlignment, {settle, &tag});
  return slot == nullptr ? nullptr : static_cast<Header*>(slot) + 1;
}

void MovablePool::give(void* object, const char* caller) {
  Header& h = checked_header(object, caller);
  std::uint32_t state = h.state.load();
  std::uint32_t next = 0;
  do {
    if (state == Header::kNone || (state & Header::kGiven) != 0) {
      refuse(caller, object, " was freed already");
    }
    const bool settled = Header::place_of(state) == Header::kSettled;
    next = settled ? Header::kNone : state | Header::kGiven;
  } while (!h.state.compare_exchange_weak(state, next));
  if (next == Header::kNone) heap_->give(&h, caller);
}

Bytes MovablePool::usable_bytes(const void* object, const char* caller) const {
  return heap_->usable_bytes(&checked_header(object, caller), caller) - sizeof(Header);
}

std::uint64_t MovablePool::tag(const void* object, const char* caller) const {
  return checked_header(object, caller).tag;
}

bool MovablePool::pin(void* object, const char* caller) {
  settle_orphans();
  Header& h = checked_header(object, caller);
  std::uint32_t state = h.state.load();
  do {
    if (Header::place_of(state) == Header::kLeaving) return false;
  } while (!h.state.compare_exchange_weak(state, state + Header::kPin));
  return true;
}

void MovablePool::unpin(void* object, const char* caller) {
  Header& h = checked_header(object, caller);
  if (h.state.load() < Header::kPin) refuse(caller, object, " is not pinned");
  h.state -= Header::kPin;
}

// --- passes -------------------------------------------------------------------------------------

std::size_t MovablePool::begin(std::uint64_t budget_us, Bytes budget_bytes, ashlar_move* moves,
                               std::size_t n, bool& busy) {
  busy = !claim(budget_us);
  return busy ? 0 : propose(budget_bytes, moves, n);
}

// False: another pass goes on.
bool MovablePool::claim(std::uint64_t budget_us) {
  settle_orphans();
  std::uint32_t none = 0;
  if (!process_.compare_exchange_strong(none, os::process_number())) return false;
  outer_ = t_passes_of;
  t_passes_of = this;
  const std::uint64_t now = os::now_us();
  deadline_us_ = budget_us < UINT64_MAX - now ? now + budget_us : UINT64_MAX;
  notices.tell({ASHLAR_PASS_BEGINS, handle(), {}, 0, nullptr});
  return true;
}

std::size_t MovablePool::propose(Bytes budget_bytes, ashlar_move* moves, std::size_t n) {
  bytes_chosen_ = 0;
  std::size_t count = 0;
  heap_->with_slabs([&](Arena& home, LaneSlabs& slabs) {
    if (!has_plan_) {
      compactor.make_plan_of(slabs);
      has_plan_ = true;
      cursor_ = 0;
    }
    has_plan_ = !home.for_each_slab_of(slabs, UnitIndex{cursor_}, [&](const Slab& slab) {
      cursor_ = home.unit_of_slab(slab).v;
      return choose(home, slabs, slab, budget_bytes, moves, n, count);
    });
  });
  return count;
}

bool MovablePool::should_stop() const { return os::now_us() >= deadline_us_; }

// Chooses what leaves one slab. False: the budget or the moves are used up.
bool MovablePool::choose(Arena& home, LaneSlabs& slabs, Slab slab, Bytes budget_bytes,
                         ashlar_move* moves, std::size_t n, std::size_t& count) {
  if (home.score_of(slab.base()) == 0) return true;
  const SizeClass& info = slab.size_class_info();
  const ClassIndex c{slab.descriptor().size_class};
  for (std::uint32_t i = 0; i < info.capacity; i++) {
    if (slab.is_free(i)) continue;
    if (count == n || bytes_chosen_ + info.slot_bytes > budget_bytes || should_stop()) return false;
    bool full = false;
    if (leave(home, slabs, slab.base() + Bytes{i} * info.slot_bytes, c, moves[count], full)) {
      bytes_chosen_ += info.slot_bytes;
      count++;
    }
    if (full) break;
  }
  return true;
}

// False: this one stays. `full`: there is no better place for any.
bool MovablePool::leave(Arena& home, LaneSlabs& slabs, std::byte* slot, ClassIndex c,
                        ashlar_move& move, bool& full) {
  Header& from = *reinterpret_cast<Header*>(slot);
  std::uint32_t settled = Header::kSettled;  // and no pins
  if (!from.state.compare_exchange_strong(settled, Header::kLeaving)) return false;
  void* const place = home.take_dense(slabs, c);
  if (place == nullptr) {
    full = true;
    std::uint32_t leaving = Header::kLeaving;
    if (!from.state.compare_exchange_strong(leaving, Header::kSettled)) {
      from.state.store(Header::kNone);  // given in the meantime
      void* const given = slot;
      home.give_slots(slabs, c, &given, 1);
    }
    return false;
  }
  auto* const to = new (place) Header{from.tag, Header::kArriving};
  move = {&from + 1, to + 1, size_class(c).slot_bytes - sizeof(Header), from.tag, ASHLAR_SKIP};
  return true;
}

// What was on its way, and goes. Under the heap's lock, past ProgramHeap::give: that looks for idle
// pages now and then, for milliseconds that a pass does not have.
void MovablePool::give_place(Arena& home, LaneSlabs& slabs, void* object) {
  void* const slot = &header(object);
  const Bytes bytes = heap_->usable_bytes(slot, "ashlar_pool_end");
  header(object).state.store(Header::kNone);
  home.give_slots(slabs, class_for(bytes), &slot, 1);
}

// The one of the two that stays is settled, unless the program gave it on its way.
void MovablePool::stay(Arena& home, LaneSlabs& slabs, void* object) {
  std::uint32_t state = header(object).state.load();
  while ((state & Header::kGiven) == 0) {
    const std::uint32_t settled = state - Header::place_of(state) + Header::kSettled;
    if (header(object).state.compare_exchange_weak(state, settled)) return;
  }
  give_place(home, slabs, object);
}

void MovablePool::end(const ashlar_move* moves, std::size_t n, ashlar_moved& moved) {
  ashlar_moved done = {};
  settle(moves, n, done);
  release(done, moved);
}

void MovablePool::settle(const ashlar_move* moves, std::size_t n, ashlar_moved& moved) {
  heap_->with_slabs([&](Arena& home, LaneSlabs& slabs) {
    const Bytes before = slabs.slab_bytes;
    for (const ashlar_move* m = moves; m != moves + n; m++) {
      const bool gone = m->verdict == ASHLAR_FREED || header(m->from).is_given();
      if (m->verdict == ASHLAR_COPIED && !gone) {
        stay(home, slabs, m->to);
        give_place(home, slabs, m->from);
        moved.objects++;
        moved.bytes += m->bytes;
        continue;
      }
      give_place(home, slabs, m->to);
      if (gone) {
        give_place(home, slabs, m->from);
      } else {
        stay(home, slabs, m->from);
        moved.skipped++;
      }
    }
    const Bytes after = slabs.slab_bytes;
    if (before > after) moved.freed += before - after;
  });
}

void MovablePool::release(const ashlar_moved& done, ashlar_moved& moved) {
  moved.objects += done.objects;
  moved.bytes += done.bytes;
  moved.skipped += done.skipped;
  moved.freed += done.freed;
  leave_pass();
  process_.store(0);
  notices.tell({ASHLAR_PASS_ENDED, handle(), done, 0, nullptr});
}

bool MovablePool::compact(std::uint64_t budget_us, Bytes budget_bytes, ashlar_moved& moved,
                          bool& busy) {
  busy = !claim(budget_us);
  if (busy) return true;
  ashlar_moved done = {};
  bool more = true;
  for (std::size_t count = 1; more && count != 0 && budget_bytes != 0 && !should_stop();) {
    ashlar_move moves[kMovesAtOnce];
    count = propose(budget_bytes, moves, kMovesAtOnce);
    more = has_plan_;
    for (std::size_t i = 0; i < count && !should_stop(); i++) {
      ashlar_move& m = moves[i];
      if (header(m.from).is_given()) continue;  // by one of the calls before
      m.verdict = relocate_(context_, m.from, m.to, m.bytes, m.tag);
    }
    budget_bytes -= bytes_chosen_;
    settle(moves, count, done);
  }
  release(done, moved);
  return more;
}

void MovablePool::leave_pass() {
  MovablePool** link = &t_passes_of;
  while (*link != nullptr && *link != this) link = &(*link)->outer_;
  if (*link != nullptr) *link = outer_;
}

bool MovablePool::is_in_pass_of_this_thread() const {
  const MovablePool* pool = t_passes_of;
  while (pool != nullptr && pool != this) pool = pool->outer_;
  return pool != nullptr;
}

// After a fork in the middle of another thread's pass.
void MovablePool::settle_orphans() {
  std::uint32_t process = process_.load();
  if (process == 0 || process == os::process_number() || is_in_pass_of_this_thread()) return;
  // Whoever gets it does it; to all others, a pass goes on.
  if (!process_.compare_exchange_strong(process, os::process_number())) return;
  heap_->with_slabs([&](Arena& home, LaneSlabs& slabs) {
    home.for_each_slab_of(slabs, UnitIndex{0}, [&](const Slab& slab) {
      const SizeClass& info = slab.size_class_info();
      for (std::uint32_t i = 0; i < info.capacity; i++) {
        if (slab.is_free(i)) continue;
        std::byte* const slot = slab.base() + Bytes{i} * info.slot_bytes;
        if (settle_orphan(*reinterpret_cast<Header*>(slot))) continue;
        const bool last = slab.descriptor().used == 1;
        void* const given = slot;
        home.give_slots(slabs, ClassIndex{slab.descriptor().size_class}, &given, 1);
        if (last) break;  // the slab may be gone
      }
      return true;
    });
  });
  has_plan_ = false;
  process_.store(0);
}

// False: it goes.
bool MovablePool::settle_orphan(Header& h) const {
  std::uint32_t state = h.state.load();
  std::uint32_t next = 0;
  do {
    if (Header::place_of(state) < Header::kLeaving) return true;
    const bool given = (state & Header::kGiven) != 0;
    const bool stays = !given && (names_ == nullptr || names_(context_, h.tag, &h + 1));
    next = stays ? state - Header::place_of(state) + Header::kSettled : Header::kNone;
    if (stays && names_ == nullptr) next += Header::kPin;
  } while (!h.state.compare_exchange_weak(state, next));
  return next != Header::kNone;
}

}  // namespace ashlar
