// SPDX-License-Identifier: MIT
#include "program_heap.h"

#include <cerrno>
#include <cstring>
#include <new>

#include "check.h"
#include "heap.h"
#include "maintenance.h"
#include "options.h"

namespace ashlar {

constinit ProgramHeaps program_heaps;

namespace {

constexpr std::uint32_t kCallsPerLook = 256;
constexpr int kMostTries = 10'000;  // some tenths of a millisecond

// kClassCount: pages of its own.
ClassIndex class_of(Bytes bytes, Bytes alignment) {
  if (bytes > kMaxSlotBytes || alignment > kPageBytes) return {kClassCount};
  return class_for_aligned(bytes, alignment);
}

}  // namespace

Arena& ProgramHeap::arena_of_process() { return arena; }

// The lock, and slabs that are whole.
void ProgramHeap::acquire() {
  if (lock_.lock()) half_changed_ = true;
  if (!half_changed_) [[likely]]
    return;
  home_->recover_lane(slabs());
  half_changed_ = false;
}

// For who must not wait: the holder may be what this thread's signal handler interrupted.
bool ProgramHeap::try_acquire() {
  for (int tries = 0; tries < kMostTries; tries++) {
    if (lock_.try_lock()) return true;
    os::pause();
  }
  return false;
}

class ProgramHeap::Locked {
 public:
  explicit Locked(ProgramHeap& heap) : heap_(heap) { heap.acquire(); }
  ~Locked() { heap_.release(); }
  Locked(const Locked&) = delete;

 private:
  ProgramHeap& heap_;
};

ProgramHeap& ProgramHeap::of(ashlar_heap* handle, const char* caller) {
  auto* const heap = reinterpret_cast<ProgramHeap*>(handle);
  const bool may_be = arena.contains(heap) &&
                      reinterpret_cast<std::uintptr_t>(heap) % kPageBytes == 0 &&
                      arena.buddy().kind_at(arena.page_of(heap)) == BlockKind::internal;
  if (!may_be || heap->state_.load() != State::alive) {
    refuse(caller, handle, " is not a heap, or not any more");
  }
  return *heap;
}

// --- objects ------------------------------------------------------------------------------------

void* ProgramHeap::take(Bytes bytes, Bytes alignment, Prepare prepare) {
  const ClassIndex c = class_of(bytes, alignment);
  const bool is_slot = c.v < kClassCount;
  while (bytes <= kMostBlockBytes && alignment <= kMostBlockBytes) {
    const std::uint32_t seen = home_->chunks();
    const PageCount pages = pages_for(is_slot ? size_class(c).slab_bytes : bytes == 0 ? 1 : bytes);
    if (void* const p = try_take(c, pages, alignment, prepare)) return p;
    if (make_room(seen, pages, is_slot ? bytes_of(pages) : alignment)) continue;
    if (policy_.out_of_memory == nullptr || policy_.out_of_memory(policy_.context, bytes) == 0)
      break;
  }
  errno = ENOMEM;
  return nullptr;
}

void* ProgramHeap::try_take(ClassIndex c, PageCount pages, Bytes alignment, Prepare prepare) {
  const Locked locked(*this);
  void* object = nullptr;
  if (c.v == kClassCount) {
    object = home_->take_owned_pages(slabs(), pages, alignment);
  } else {
    home_->take_slots(slabs(), c, &object, 1);
  }
  if (object != nullptr && prepare.call != nullptr) prepare.call(object, prepare.argument);
  return object;
}

bool ProgramHeap::make_room(std::uint32_t seen, PageCount pages, Bytes alignment) {
  if (!is_in_own_arena()) return heap.make_room(seen, pages, alignment);
  return home_->grow(seen, pages, alignment);
}

void ProgramHeap::give(void* p, const char* caller) {
  Bytes bytes = 0;
  if (!has(p, bytes)) reject(p, caller);
  const Locked locked(*this);
  if (home_->entry_of(p).is_large()) {
    if (!home_->give_owned_pages(p)) reject(p, caller);
  } else {
    home_->give_slots(slabs(), class_for(bytes), &p, 1);
  }
  tend_sometimes();
}

void* ProgramHeap::resize(void* p, Bytes bytes, const char* caller) {
  const Bytes usable = usable_bytes(p, caller);
  if (bytes <= usable && bytes > usable / 2) return p;
  if (usable > kMaxSlotBytes && bytes > kMaxSlotBytes && bytes <= kMostBlockBytes) {
    const Locked locked(*this);
    bool zero = false;
    if (home_->resize_pages(p, pages_for(bytes), zero)) return p;
  }
  const int saved_errno = errno;
  void* const to = take(bytes, kMinAlignment);
  if (to == nullptr) {
    if (bytes > usable) return nullptr;
    errno = saved_errno;
    return p;  // it fits where it is
  }
  std::memcpy(to, p, bytes < usable ? bytes : usable);
  give(p, caller);
  return to;
}

Bytes ProgramHeap::usable_bytes(const void* p, const char* caller) const {
  Bytes bytes = 0;
  if (!has(p, bytes)) reject(p, caller);
  return bytes;
}

// Whether an object of this heap starts at p, as far as the unit table can tell.
bool ProgramHeap::has(const void* p, Bytes& bytes) const {
  if (!home_->contains(p)) return false;
  const UnitEntry entry = home_->entry_of(p);
  if (entry.tag() != slabs().tag) return false;
  const auto address = reinterpret_cast<std::uintptr_t>(p);
  if (entry.is_large()) {
    bytes = bytes_of(home_->buddy().pages_at(home_->page_of(p)));
    return address % kUnitBytes == 0;
  }
  const SizeClass& info = size_class(entry.size_class());
  bytes = info.slot_bytes;
  return is_slot_start(static_cast<std::uint32_t>(address) & (info.slab_bytes - 1), info.magic);
}

void ProgramHeap::reject(const void* p, const char* caller) const {
  const Place place = home_->locate(p);
  const bool in_use = place.kind == Place::Kind::slot || place.kind == Place::Kind::large;
  const bool foreign =
      place.kind == Place::Kind::foreign || (in_use && home_->entry_of(p).tag() != slabs().tag &&
                                             home_->entry_of(place.begin).tag() != slabs().tag);
  if (foreign) refuse(caller, p, " is not of this heap");
  ashlar::reject(p, caller, *home_);
}

void ProgramHeap::count(ashlar_heap_stats& stats) const {
  stats = {};
  home_->for_each_of(
      slabs(),
      [&](const Slab& slab) {
        const std::uint64_t used = slab.descriptor().used;
        stats.objects += used;
        stats.allocated += used * slab.size_class_info().slot_bytes;
        stats.active += slab.size_class_info().slab_bytes;
      },
      [&](const void*, Bytes bytes) {
        stats.objects++;
        stats.allocated += bytes;
        stats.active += bytes;
      });
}

ProgramHeap::Account ProgramHeap::account() const {
  Account account;
  account.number = head_.number.load();
  account.has_own_pages = is_in_own_arena();
  count(account.held);
  home_->for_each_of(
      slabs(),
      [&](const Slab& slab) {
        account.resident += os::resident_bytes(slab.base(), slab.size_class_info().slab_bytes);
      },
      [&](const void* first, Bytes bytes) {
        account.resident += os::resident_bytes(first, bytes);
      });
  return account;
}

// --- idle pages ---------------------------------------------------------------------------------

// Under the lock. True if others had freed something.
bool ProgramHeap::tend(Arena::Purge which, Bytes& bytes) {
  const bool any = home_->drain_inbox(slabs());
  if (policy_.may_purge != nullptr && policy_.may_purge(policy_.context) == 0) return any;
  bytes += home_->purge_slabs(slabs(), which);
  if (is_in_own_arena() && source_.purge != nullptr && slabs().purge_cursor == 0) {
    do {
      bytes += home_->purge(which);
    } while (!home_->purge_pass_ended());
  }
  return any;
}

// Under the lock.
void ProgramHeap::tend_sometimes() {
  if (maintenance.thread_runs()) return maintenance.notice_activity();
  if (++calls_ % kCallsPerLook != 0 || options.purge_ms < 0) return;
  const std::uint64_t now = os::now_ms();
  if (now < due_ms_) return;
  due_ms_ = now + static_cast<std::uint64_t>(options.purge_ms) / 2;
  Bytes bytes = 0;
  tend(Arena::Purge::aged, bytes);
}

bool ProgramHeaps::tend(Arena::Purge which, Bytes& bytes) {
  bool any = false;
  // pairs with: take_record
  for (ProgramHeap* h = all_.load(std::memory_order_acquire); h != nullptr; h = h->next_) {
    for (bool more = true; more;) {
      more = false;
      if (!h->lock_.try_lock()) {
        any = true;
        break;
      }
      if (!h->half_changed_) {
        // There may be announcements to pass on even if it is unused.
        any |= arena.drain_inbox(h->head_.slabs);
        if (h->state_.load() == ProgramHeap::State::alive) {
          any |= h->tend(which, bytes);
          more = h->slabs().purge_cursor != 0;
        }
      }
      h->lock_.unlock();
    }
  }
  return any;
}

// --- their lives --------------------------------------------------------------------------------

ProgramHeap* ProgramHeaps::create(const ashlar_heap_policy& policy) {
  ProgramHeap* const h = take_record();
  if (h == nullptr) {
    errno = ENOMEM;
    return nullptr;
  }
  h->policy_ = policy;
  h->home_ = &arena;
  h->slabs_ = &h->head_.slabs;
  if (policy.reserve != nullptr) {
    void* const base = policy.reserve(policy.context, policy.reserve_bytes);
    if (base == nullptr) {
      give_record(*h);
      errno = ENOMEM;
      return nullptr;
    }
    h->source_ = {policy.context, policy.commit, policy.purge};
    if (!h->settle_in({static_cast<std::byte*>(base), policy.reserve_bytes,
                       os::Region::Backing::sourced, &h->source_})) {
      if (policy.release != nullptr) policy.release(policy.context, base, policy.reserve_bytes);
      give_record(*h);
      return nullptr;
    }
  }
  h->head_.number.store(made_.fetch_add(1) + 1);
  h->state_.store(ProgramHeap::State::alive);
  return h;
}

ProgramHeap* ProgramHeaps::create_in(std::byte* memory, Bytes bytes) {
  const auto address = reinterpret_cast<std::uintptr_t>(memory);
  const Bytes skipped = align_up(address, kChunkBytes) - address;
  if (memory == nullptr || bytes < skipped) {
    errno = EINVAL;
    return nullptr;
  }
  ashlar_heap_policy policy = {};
  policy.context = memory + skipped;
  policy.reserve_bytes = bytes - skipped;
  policy.reserve = [](void* context, std::size_t) { return context; };
  return create(policy);
}

// Makes an arena of its own. False and errno: it cannot be.
bool ProgramHeap::settle_in(const os::Region& region) {
  region_ = region;
  if (reinterpret_cast<std::uintptr_t>(region.base) % kChunkBytes != 0 ||
      region.bytes < Arena::region_bytes(1)) {
    errno = EINVAL;
    return false;
  }
  errno = ENOMEM;
  if (own_arena_.create(region) != os::Commit::done) {
    own_arena_.forget();
    return false;
  }
  bool zero = false;
  void* const page =
      own_arena_.take_pages(pages_for(sizeof(LaneSlabs)), kPageBytes, BlockKind::internal, zero);
  if (page == nullptr) return false;
  home_ = &own_arena_;
  slabs_ = static_cast<LaneSlabs*>(page);
  own_arena_.init_lane(*slabs_, head_.slabs.tag);
  return true;
}

void ProgramHeaps::destroy(ashlar_heap* handle) {
  ProgramHeap& h = ProgramHeap::of(handle, "ashlar_heap_destroy");
  auto alive = ProgramHeap::State::alive;
  if (!h.state_.compare_exchange_strong(alive, ProgramHeap::State::destroyed)) {
    refuse("ashlar_heap_destroy", handle, " is not a heap, or not any more");
  }
  h.head_.number.store(0);
  {
    const ProgramHeap::Locked locked(h);
    h.clear();
  }
  give_record(h);
  maintenance.tick(this_lane(), true);
}

// Under the lock.
void ProgramHeap::clear() {
  if (!is_in_own_arena()) return home_->give_all(slabs());
  own_arena_.forget();
  home_ = &arena;
  slabs_ = &head_.slabs;
  if (policy_.release != nullptr) policy_.release(policy_.context, region_.base, region_.bytes);
}

ProgramHeap* ProgramHeaps::take_record() {
  unused_lock_.lock();
  ProgramHeap* h = unused_;
  if (h != nullptr) unused_ = h->next_unused_;
  unused_lock_.unlock();
  if (h != nullptr) return h;

  constexpr PageCount kPages = pages_for(sizeof(ProgramHeap));
  bool zero = false;
  if (!heap.ensure_arena()) return nullptr;
  for (;;) {
    const std::uint32_t seen = arena.chunks();
    void* const pages = arena.take_pages(kPages, kPageBytes, BlockKind::internal, zero);
    if (pages != nullptr) {
      std::memset(pages, 0, bytes_of(kPages));
      h = new (pages) ProgramHeap;
      arena.init_lane(h->head_.slabs, reinterpret_cast<std::uintptr_t>(pages) | kProgramHeapTag);
      h->next_ = all_.load(std::memory_order_relaxed);  // checked by the exchange
      // pairs with: tend
      while (!all_.compare_exchange_weak(h->next_, h, std::memory_order_release)) {
      }
      return h;
    }
    if (!heap.make_room(seen, kPages, kPageBytes)) return nullptr;
  }
}

void ProgramHeaps::give_record(ProgramHeap& record) {
  unused_lock_.lock();
  record.next_unused_ = unused_;
  unused_ = &record;
  unused_lock_.unlock();
}

void ProgramHeaps::after_fork_in_child() {
  unused_lock_.reset();
  unused_ = nullptr;
  for (ProgramHeap* h = all_.load(); h != nullptr; h = h->next_) {
    h->lock_.reset();
    h->head_.slabs.empty_inbox();
    if (h->state_.load() != ProgramHeap::State::alive) {
      h->head_.number.store(0);  // it may have been half made
      h->home_ = &arena;
      h->slabs_ = &h->head_.slabs;
      h->own_arena_.forget();
      // That may have been half done, and so may be one of its slabs.
      if (h->head_.slabs.end_unit != 0) arena.recover_lane(h->head_.slabs);
      arena.give_all(h->head_.slabs);
      h->next_unused_ = unused_;
      unused_ = h;
      continue;
    }
    h->half_changed_ = true;
    if (h->is_in_own_arena()) {
      h->own_arena_.after_fork_in_child();
      h->slabs_->empty_inbox();
    }
  }
}

}  // namespace ashlar
