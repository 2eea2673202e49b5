// SPDX-License-Identifier: MIT
#include "heap.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <pthread.h>

#include "compact.h"
#include "lane_parts.h"
#include "maintenance.h"
#include "notices.h"
#include "options.h"
#include "program_heap.h"
#include "root.h"
#include "sampler.h"

namespace ashlar {

constinit Heap heap;

namespace {

constexpr Bytes kHeapBytes = Bytes{16} << 40;  // of addresses, see os.h
constexpr unsigned kPlacesToTry = 8;

// So many slow calls in so short a time earn a thread its lane. To one that calls less often, a
// lane would not be worth the memory that it keeps.
constexpr std::uint32_t kCallsToEarn = 16;
constexpr std::uint32_t kMsToEarn = 4;
// With a lane for each processor, no more threads run at once than have one. Who finds none in the
// pool then gets a new one after so many calls: before, another thread may have ended.
constexpr std::uint32_t kCallsToAdd = 1024;
// The first thread has one of them, and may only wait for others.
constexpr std::uint32_t kFewLanes = 2;

// What a thread that ends may leave in its magazines for the next one.
constexpr Bytes kMostLeft = 256 * kKiB;
// Lanes without a thread that are asked for a slab.
constexpr std::uint32_t kMostAsked = 16;

enum class ThreadState : std::uint8_t { young, ended };

constinit thread_local std::uint32_t t_calls __attribute__((tls_model("initial-exec"))) = 0;
constinit thread_local std::uint32_t t_counted_ms __attribute__((tls_model("initial-exec"))) = 0;
constinit thread_local ThreadState t_state __attribute__((tls_model("initial-exec"))) =
    ThreadState::young;

pthread_key_t thread_key;
std::atomic<bool> thread_key_made = false;

void forget_sample(const void* p) {
  if (Sampler::is_on()) [[unlikely]]
    sampler.forget_large(p);
}

void on_thread_exit(void*) { heap.end_this_thread(); }
void on_fork_in_child() { heap.after_fork_in_child(); }

}  // namespace

// --- the arena ----------------------------------------------------------------------------------

bool Heap::ensure_arena() {
  if (ready_.load(std::memory_order_acquire)) return true;  // pairs with: the store below
  create_lock_.lock();
  for (unsigned attempt = 0; !arena.exists() && attempt < kPlacesToTry; attempt++) {
    const os::Region region = os::reserve_region(kHeapBytes, attempt);
    if (region.base == nullptr) break;
    if (arena.create(region) == os::Commit::done) break;
    arena.forget();
  }
  if (arena.exists() && !ready_.load(std::memory_order_relaxed)) {  // under the lock
    std::atomic<std::uint32_t>* const marker = os::map_fork_marker();
    if (marker != nullptr) marker->store(1);
    Lock::watch(marker);
    ashlar_root.region.store(arena.region_base());
    if (t_lane == 0) set_this_lane(nullptr);        // before there is anything to free
    ready_.store(true, std::memory_order_release);  // pairs with: the load above
  }
  create_lock_.unlock();
  return arena.exists();
}

bool Heap::make_room(std::uint32_t seen, PageCount pages, Bytes alignment) {
  if (!ensure_arena()) return false;
  if (drain_pool()) return true;
  return arena.grow(seen, pages, alignment);
}

// --- lanes --------------------------------------------------------------------------------------

// From each slow call of a thread without a lane. The first thread gets its lane at once: most
// programs have no other.
bool Heap::earns_lane() {
  if (lanes_.load(std::memory_order_relaxed) == nullptr) return true;  // only whether there is any
  const std::uint32_t calls = t_calls++;
  if (calls % kCallsToEarn != 0) return false;
  if (calls == kCallsToEarn && shared_by_threads_) maintenance.start_thread();
  const auto now = static_cast<std::uint32_t>(os::now_ms());
  const bool often = calls != 0 && now - t_counted_ms < kMsToEarn;
  t_counted_ms = now;
  return often;
}

Lane* Heap::lease_slow() {
  maintenance.notice_activity();  // without a lane, nobody else does
  if (t_state == ThreadState::ended || options.check == kCheckExact) return nullptr;
  if (!earns_lane() || !ensure_arena()) return nullptr;
  Lane* const lane = lease();
  if (lane == nullptr) return nullptr;
  const bool alone = !shared_by_threads_.exchange(true);
  set_this_lane(lane);
  watch_this_thread();
  if (!alone) maintenance.start_thread();
  return lane;
}

Lane* Heap::lease() {
  pool_lock_.lock();
  Lane* lane = pool_;
  if (lane != nullptr) {
    pool_ = lane->next_pooled;
    lane->leased = true;
  }
  pool_lock_.unlock();
  if (lane == nullptr) return may_add_lane() ? add_lane() : nullptr;
  if (lane->orphaned) recover(*lane);
  return lane;
}

// Counts the one that is added.
bool Heap::may_add_lane() {
  const std::uint32_t freely = std::max<std::uint32_t>(processors_, kFewLanes);
  std::uint32_t count = lane_count_.load();
  while (count < freely || t_calls >= kCallsToAdd) {
    if (lane_count_.compare_exchange_weak(count, count + 1)) return true;
  }
  return false;
}

// After may_add_lane().
Lane* Heap::add_lane() {
  for (;;) {
    const std::uint32_t seen = arena.chunks();
    bool zero = false;
    void* const pages = arena.take_pages(kLanePages, kPageBytes, BlockKind::internal, zero);
    if (pages != nullptr) {
      if (!zero) std::memset(pages, 0, sizeof(Lane));
      Lane* const lane = static_cast<Lane*>(pages);
      init_lane(*lane);
      lane->leased = true;
      lane->next_lane = lanes_.load(std::memory_order_relaxed);  // checked by the exchange
      // pairs with: for_each_lane
      while (!lanes_.compare_exchange_weak(lane->next_lane, lane, std::memory_order_release)) {
      }
      return lane;
    }
    if (!make_room(seen, kLanePages, kPageBytes)) {
      lane_count_--;
      return nullptr;
    }
  }
}

// With or without a lane: the end of the process's first thread matters.
void Heap::watch_this_thread() {
  // May call calloc; who has earned a lane has it by now.
  if (thread_key_made.load(std::memory_order_acquire)) {  // pairs with: start
    ::pthread_setspecific(thread_key, this_lane());
  }
}

void Heap::end_this_thread() {
  t_state = ThreadState::ended;
  maintenance.notice_thread_exit();
  release_lane_of_this_thread();
}

void Heap::release_lane_of_this_thread() {
  Lane* const lane = this_lane();
  if (lane == nullptr) return;
  // What it keeps at hand is for the next thread, if somebody sees to it that it is not for ever.
  if (maintenance.thread_runs()) {
    if (magazine_bytes(*lane) > kMostLeft) empty_magazines(*lane);
    prepare_for_next(*lane);
    flush_remote_frees(*lane);
  } else {
    flush_lane(*lane);
  }
  set_this_lane(nullptr);
  pool_lock_.lock();
  lane->leased = false;
  lane->next_pooled = pool_;
  pool_ = lane;
  pool_lock_.unlock();
}

// Takes over what was freed into the slabs of pooled lanes and of the shared one, which nobody
// else looks at, and what pooled lanes keep at hand.
bool Heap::drain_pool() {
  bool any = false;
  for_each_pooled([&](Lane& lane) {
    any |= flush_lane(lane);
    return false;
  });
  shared_lock_.lock();
  if (shared_ != nullptr && !shared_orphaned_) any |= arena.drain_inbox(*shared_);
  shared_lock_.unlock();
  return any;
}

bool Heap::adopt_slab(Lane& lane, ClassIndex c) {
  bool adopted = false;
  std::uint32_t asked = 0;
  for_each_pooled([&](Lane& pooled) {
    const Busy busy(pooled);
    if (arena.has_room(pooled.slabs, c)) {
      flush_magazine(pooled, c);
      adopted = arena.adopt_slab(pooled.slabs, lane.slabs, c);
    }
    return adopted || ++asked == kMostAsked;
  });
  return adopted;
}

void* Heap::take_dense_from_pool(ClassIndex c) {
  void* slot = nullptr;
  for_each_pooled([&](Lane& lane) {
    const Entered entered(lane);
    slot = arena.take_dense(lane.slabs, c);
    return slot != nullptr;
  });
  if (slot != nullptr) return slot;
  with_shared_slabs([&](LaneSlabs& lane) { slot = arena.take_dense(lane, c); });
  return slot;
}

// --- threads without a lane ---------------------------------------------------------------------

void* Heap::take_shared(ClassIndex c) {
  void* slot = nullptr;
  if (!ensure_arena()) {
    errno = ENOMEM;
    return nullptr;
  }
  for (;;) {
    const std::uint32_t seen = arena.chunks();
    shared_lock_.lock();
    LaneSlabs* const lane = shared_lane();
    const bool taken = lane != nullptr && arena.take_slots(*lane, c, &slot, 1) != 0;
    shared_lock_.unlock();
    if (taken) return slot;
    const PageCount slab = pages_for(size_class(c).slab_bytes);
    if (!make_room(seen, slab, bytes_of(slab))) break;
  }
  errno = ENOMEM;
  return nullptr;
}

LaneSlabs* Heap::shared_lane() {
  if (shared_ == nullptr) {
    bool zero = false;
    void* const pages =
        arena.take_pages(pages_for(sizeof(LaneSlabs)), kPageBytes, BlockKind::internal, zero);
    if (pages == nullptr) return nullptr;
    if (!zero) std::memset(pages, 0, sizeof(LaneSlabs));
    auto* const made = static_cast<LaneSlabs*>(pages);
    arena.init_lane(*made, reinterpret_cast<std::uintptr_t>(pages));
    std::atomic_signal_fence(std::memory_order_release);  // a forked child finds it whole, or none
    shared_ = made;
  } else if (shared_orphaned_) {
    arena.recover_lane(*shared_);
  }
  shared_orphaned_ = false;
  return shared_;
}

// --- large objects ------------------------------------------------------------------------------

void* Heap::take_new_large(Bytes bytes, Bytes alignment, bool& zero) {
  if (bytes <= kMostBlockBytes && alignment <= kMostBlockBytes && ensure_arena()) {
    const PageCount pages = pages_for(bytes == 0 ? 1 : bytes);
    for (;;) {
      const std::uint32_t seen = arena.chunks();
      void* const p = arena.take_pages(pages, alignment, BlockKind::large, zero);
      if (p != nullptr) return sampled_large_if_due(p, bytes_of(pages), bytes);
      if (!make_room(seen, pages, alignment)) break;
    }
  }
  errno = ENOMEM;
  return nullptr;
}

void* Heap::resize_large(void* p, Bytes old_bytes, Bytes new_bytes) {
  if (new_bytes > kMostBlockBytes) return nullptr;
  const PageCount pages = pages_for(new_bytes);
  const bool moves = new_bytes > old_bytes && arena.may_move(p);
  const int saved_errno = errno;
  void* to = moves ? arena.take_pages_in_memory(p, pages) : nullptr;
  if (to != nullptr) {
    to = sampled_large_if_due(to, bytes_of(pages), new_bytes);
  } else {
    bool zero = false;
    if (arena.resize_pages(p, pages, zero)) {
      if (new_bytes > old_bytes) maintenance.make_up_for(pages);
      return p;
    }
    if (pages.v <= kPagesPerChunk) return nullptr;
    to = take_large_with_room(new_bytes);
    if (to == nullptr) return nullptr;
  }
  errno = saved_errno;
  if (moves) {
    if (!arena.move_block(p, to)) return nullptr;
    forget_sample(p);
    maintenance.make_up_for(pages);
    maintenance.tick(this_lane(), true);
  } else {
    std::memcpy(to, p, old_bytes);
    if (!give_large(p)) reject(p, "realloc");
  }
  return to;
}

// What has outgrown its place is likely to grow on. That costs addresses, and no memory.
void* Heap::take_large_with_room(Bytes bytes) {
  const PageCount pages = pages_for(bytes);
  const std::uint32_t seen = arena.chunks();
  void* p = arena.take_pages_with_room(pages);
  if (p == nullptr && arena.grow(seen, PageCount{2 * pages.v}, kPageBytes)) {
    p = arena.take_pages_with_room(pages);
  }
  bool zero = false;
  return p != nullptr ? sampled_large_if_due(p, bytes_of(pages), bytes)
                      : take_new_large(bytes, kPageBytes, zero);
}

// --- start and fork -----------------------------------------------------------------------------

void Heap::start() {
  processors_ = os::processors();
  if (::pthread_key_create(&thread_key, on_thread_exit) == 0) {
    thread_key_made.store(true, std::memory_order_release);  // pairs with: watch_this_thread
    watch_this_thread();
  }
  ::pthread_atfork(nullptr, nullptr, on_fork_in_child);
  // Before the options were read this thread may have leased one.
  if (options.check == kCheckExact) release_lane_of_this_thread();
}

void Heap::after_fork_in_child() {
  Lock::note_fork();
  create_lock_.reset();
  pool_lock_.reset();
  shared_lock_.reset();
  arena.after_fork_in_child();
  maintenance.after_fork_in_child();
  notices.after_fork_in_child();
  compactor.after_fork_in_child();
  program_heaps.after_fork_in_child();
  if (shared_ != nullptr) {
    shared_->empty_inbox();
    shared_orphaned_ = true;
  }
  pool_ = nullptr;
  shared_by_threads_ = this_lane() != nullptr;
  lane_count_ = 0;  // a thread that was adding one may have counted it
  for (Lane* lane = lanes_.load(); lane != nullptr; lane = lane->next_lane) {
    lane_count_++;
    lane->slabs.empty_inbox();
    if (lane == this_lane()) {
      if (lane->frozen.is_held()) recover_frozen(*lane);
      lane->frozen.reset();
      lane->lost_notifications = true;
      continue;
    }
    lane->frozen.reset();
    // Its thread may have been anywhere, in the middle of an exit too.
    lane->orphaned = true;
    lane->leased = false;
    lane->next_pooled = pool_;
    pool_ = lane;
  }
  watch_this_thread();  // the first one of this process
}

void Heap::recover(Lane& lane) {
  arena.recover_lane(lane.slabs);
  recover_magazines(lane);
  lane.orphaned = false;
}

}  // namespace ashlar
