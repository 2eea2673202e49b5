// SPDX-License-Identifier: MIT
#include "heap.h"

#include <cerrno>
#include <cstring>
#include <pthread.h>

#include "options.h"

namespace ashlar {

constinit Heap heap;

namespace {

constexpr Bytes kHeapBytes = Bytes{16} << 40;  // of addresses, see os.h
constexpr unsigned kPlacesToTry = 8;

// Slow calls after which a thread has earned a lane.
constexpr std::uint32_t kCallsToEarn = 16;

// Pages are moved rather than copied from here on; below, a system call costs more than it saves.
constexpr Bytes kMoveBytes = 256 * kKiB;

enum class ThreadState : std::uint8_t { young, ended };

constinit thread_local std::uint32_t t_calls __attribute__((tls_model("initial-exec"))) = 0;
constinit thread_local ThreadState t_state __attribute__((tls_model("initial-exec"))) =
    ThreadState::young;

pthread_key_t thread_key;
std::atomic<bool> thread_key_made = false;

void on_thread_exit(void*) { heap.release_lane_of_this_thread(); }
void on_fork_in_child() { heap.after_fork_in_child(); }

}  // namespace

// --- the arena ----------------------------------------------------------------------------------

bool Heap::ensure_arena() {
  if (ready_.load(std::memory_order_acquire)) return true;  // pairs with: the store below
  create_lock_.lock([this] { return repair_if_forked(); });
  for (unsigned attempt = 0; !arena.exists() && attempt < kPlacesToTry; attempt++) {
    const os::Region region = os::reserve_region(kHeapBytes, attempt);
    if (region.base == nullptr) break;
    if (arena.create(region) == os::Commit::done) break;
    arena.forget();
  }
  if (arena.exists() && !ready_.load(std::memory_order_relaxed)) {  // under the lock
    fork_marker_ = os::map_fork_marker();
    if (fork_marker_ != nullptr) fork_marker_->store(1);
    ready_.store(true, std::memory_order_release);  // pairs with: the load above
  }
  create_lock_.unlock();
  return arena.exists();
}

bool Heap::make_room(std::uint32_t seen, PageCount pages, Bytes alignment) {
  if (!ensure_arena()) return false;
  if (drain_pool()) return true;
  return arena.grow(seen, pages, alignment, [this] { return repair_if_forked(); });
}

// --- lanes --------------------------------------------------------------------------------------

Lane* Heap::lane_for_this_thread() {
  if (this_lane() != &no_lane) return this_lane();
  if (t_state == ThreadState::ended) return nullptr;
  // The first thread gets its lane at once: most programs have no other.
  // relaxed: only whether there is any
  if (lanes_.load(std::memory_order_relaxed) != nullptr && ++t_calls < kCallsToEarn) return nullptr;
  if (!ensure_arena()) return nullptr;
  Lane* const lane = lease();
  if (lane == nullptr) return nullptr;
  set_this_lane(*lane);
  watch_this_thread(lane);
  return lane;
}

Lane* Heap::lease() {
  pool_lock_.lock([this] { return repair_if_forked(); });
  Lane* lane = pool_;
  if (lane != nullptr) {
    pool_ = lane->next_pooled;
    lane->leased = true;
  }
  pool_lock_.unlock();
  if (lane == nullptr) return add_lane();
  if (lane->orphaned) recover(*lane);
  return lane;
}

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
    if (!make_room(seen, kLanePages, kPageBytes)) return nullptr;
  }
}

void Heap::watch_this_thread(Lane* lane) {
  // May call calloc; by now this thread has its lane.
  if (thread_key_made.load(std::memory_order_acquire)) {  // pairs with: start
    ::pthread_setspecific(thread_key, lane);
  }
}

void Heap::release_lane_of_this_thread() {
  t_state = ThreadState::ended;
  Lane* const lane = this_lane();
  if (lane == &no_lane) return;
  flush_lane(*lane);
  set_this_lane(no_lane);
  pool_lock_.lock([this] { return repair_if_forked(); });
  lane->leased = false;
  lane->next_pooled = pool_;
  pool_ = lane;
  pool_lock_.unlock();
}

// Takes over what was freed into the slabs of pooled lanes, which nobody else looks at.
bool Heap::drain_pool() {
  bool any = false;
  pool_lock_.lock([this] { return repair_if_forked(); });
  for (Lane* lane = pool_; lane != nullptr; lane = lane->next_pooled) {
    if (!lane->orphaned) any |= arena.drain_inbox(lane->slabs);
  }
  pool_lock_.unlock();
  return any;
}

// --- threads without a lane ---------------------------------------------------------------------

void* Heap::take_shared(ClassIndex c) {
  void* slot = nullptr;
  if (!ensure_arena()) {
    errno = ENOMEM;
    return nullptr;
  }
  shared_lock_.lock([this] { return repair_if_forked(); });
  for (;;) {
    const std::uint32_t seen = arena.chunks();
    if (LaneSlabs* const lane = shared_lane()) {
      if (arena.take_slots(*lane, c, &slot, 1) != 0) break;
    }
    const PageCount slab = pages_for(size_class(c).slab_bytes);
    if (!make_room(seen, slab, bytes_of(slab))) break;
  }
  shared_lock_.unlock();
  if (slot == nullptr) errno = ENOMEM;
  return slot;
}

LaneSlabs* Heap::shared_lane() {
  if (shared_ == nullptr) {
    bool zero = false;
    void* const pages =
        arena.take_pages(pages_for(sizeof(LaneSlabs)), kPageBytes, BlockKind::internal, zero);
    if (pages == nullptr) return nullptr;
    if (!zero) std::memset(pages, 0, sizeof(LaneSlabs));
    shared_ = static_cast<LaneSlabs*>(pages);
    arena.init_lane(*shared_, reinterpret_cast<std::uintptr_t>(pages));
  } else if (shared_orphaned_) {
    arena.recover_lane(*shared_);
  }
  shared_orphaned_ = false;
  return shared_;
}

// --- large objects ------------------------------------------------------------------------------

void* Heap::take_large(Bytes bytes, Bytes alignment, bool& zero) {
  if (bytes <= kMostBlockBytes && alignment <= kMostBlockBytes && ensure_arena()) {
    const PageCount pages = pages_for(bytes == 0 ? 1 : bytes);
    zero = false;
    if (alignment <= kPageBytes) {
      if (void* const p = take_recent_large(pages)) return p;
    }
    for (;;) {
      const std::uint32_t seen = arena.chunks();
      void* const p = arena.take_pages(pages, alignment, BlockKind::large, zero);
      if (p != nullptr) return p;
      if (!make_room(seen, pages, alignment)) break;
    }
  }
  errno = ENOMEM;
  return nullptr;
}

bool Heap::give_large(void* p) {
  if (keep_recent_large(p)) return true;
  if (!arena.give_pages(p, BlockKind::large)) return false;
  maintain(this_lane() == &no_lane ? nullptr : this_lane());
  return true;
}

void* Heap::resize_large(void* p, Bytes old_bytes, Bytes new_bytes) {
  if (new_bytes > kMostBlockBytes) return nullptr;
  bool zero = false;
  if (arena.resize_pages(p, pages_for(new_bytes), zero)) return p;
  if (old_bytes < kMoveBytes) return nullptr;
  const int saved_errno = errno;
  void* const to = take_large(new_bytes, kPageBytes, zero);
  if (to == nullptr) return nullptr;
  errno = saved_errno;
  if (!os::move_pages(p, to, old_bytes)) {
    if (!give_large(to)) fatal("realloc(): lost a block of our own");
    return nullptr;
  }
  os::renew_mapping(p, old_bytes);
  if (!give_large(p)) fatal("realloc(): lost a block of our own");
  return to;
}

// --- housekeeping -------------------------------------------------------------------------------

void Heap::maintain(Lane* lane) {
  const std::int64_t purge_ms = options.purge_ms;
  if (purge_ms < 0) return;
  const std::uint64_t now = os::now_ms();
  std::uint64_t due = due_ms_.load(std::memory_order_relaxed);  // checked by the exchange
  if (now < due) return;
  // Two passes a period: a page goes when it was free for one whole pass.
  const std::uint64_t next = now + static_cast<std::uint64_t>(purge_ms) / 2;
  if (!due_ms_.compare_exchange_strong(due, next)) return;  // somebody else does it
  if (lane != nullptr) trim_lane(*lane);
  arena.purge(purge_ms == 0);
}

bool Heap::trim() {
  if (!ready_.load(std::memory_order_acquire)) return false;  // pairs with: ensure_arena
  if (this_lane() != &no_lane) flush_lane(*this_lane());
  drain_pool();
  return arena.purge(true) != 0;
}

// --- start and fork -----------------------------------------------------------------------------

void Heap::start() {
  if (::pthread_key_create(&thread_key, on_thread_exit) == 0) {
    thread_key_made.store(true, std::memory_order_release);  // pairs with: watch_this_thread
    if (this_lane() != &no_lane) watch_this_thread(this_lane());
  }
  ::pthread_atfork(nullptr, nullptr, on_fork_in_child);
}

void Heap::after_fork_in_child() {
  if (fork_marker_ != nullptr) fork_marker_->store(1);
  create_lock_.reset();
  pool_lock_.reset();
  shared_lock_.reset();
  arena.after_fork_in_child();
  shared_orphaned_ = true;
  pool_ = nullptr;
  for (Lane* lane = lanes_.load(); lane != nullptr; lane = lane->next_lane) {
    if (lane == this_lane()) continue;
    // Its thread may have been anywhere, in the middle of an exit too.
    lane->orphaned = true;
    lane->leased = false;
    lane->next_pooled = pool_;
    pool_ = lane;
  }
}

void Heap::recover(Lane& lane) {
  arena.recover_lane(lane.slabs);
  recover_magazines(lane);
  lane.orphaned = false;
}

// True: this process was made behind our back, and the locks it inherited are free now.
bool Heap::repair_if_forked() {
  if (fork_marker_ == nullptr || fork_marker_->load() != 0) return false;
  after_fork_in_child();
  return true;
}

}  // namespace ashlar
