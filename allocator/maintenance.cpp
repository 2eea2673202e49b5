// SPDX-License-Identifier: MIT
#include "maintenance.h"

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <link.h>
#include <pthread.h>
#include <unistd.h>

#include "bits.h"
#include "heap.h"
#include "notices.h"
#include "options.h"
#include "program_heap.h"
#include "root.h"

namespace ashlar {

constinit Maintenance maintenance;

namespace {

// Without a thread of ours: free pages that may stay dirty until they age, in bytes and as a part
// of what is in use.
constexpr Bytes kLeastDirty = kMiB;
constexpr std::uint32_t kDirtyPart = 32;

// Rests between passes. Two of them leave time in a period for the passes: what a thread keeps at
// hand is found unused by the second pass after it fell asleep.
constexpr std::int64_t kRestsPerTwoPeriods = 5;
constexpr std::int64_t kShortestRestMs = 10;
constexpr std::int64_t kTightRestMs = 50;  // where the limit is near
constexpr std::int64_t kPressingPart = 4;  // so much shorter where threads wait for memory
constexpr std::int64_t kLongestRestMs = 60'000;
// Between the parts of a pass, so that page faults of others are not kept waiting.
constexpr std::uint32_t kPartPauseMs = 1;
// Passes that found nothing until the thread sleeps: for what was freed just before it, the first
// was too early.
constexpr unsigned kQuietPasses = 2;
constexpr std::uint32_t kLongSleepMs = 3'600'000;
constexpr std::uint32_t kStopPatienceMs = 100;
// Between two looks at the memory for who wants to be told.
constexpr std::uint64_t kLookMs = 500;

Sawtooth::Pages held_pages() { return {arena.buddy().used_pages(), arena.buddy().dirty_pages()}; }

// Small, as with huge pages a large stack may be in memory as a whole. Thread-local variables of
// the program lie in it too.
Bytes stack_bytes() {
  Bytes bytes = 128 * kKiB;
  ::dl_iterate_phdr(
      [](dl_phdr_info* object, std::size_t, void* sum) {
        for (int i = 0; i < object->dlpi_phnum; i++) {
          const auto& part = object->dlpi_phdr[i];
          if (part.p_type == PT_TLS) *static_cast<Bytes*>(sum) += part.p_memsz + part.p_align;
        }
        return 0;
      },
      &bytes);
  return align_up(bytes, kPageBytes);
}

}  // namespace

std::uint32_t Maintenance::rest_ms() const {
  std::int64_t rest = 2 * options.purge_ms / kRestsPerTwoPeriods;
  if (shortage_ == Shortage::some) rest /= kPressingPart;
  if (shortage_ == Shortage::tight) rest = std::min(rest, kTightRestMs);
  return static_cast<std::uint32_t>(std::clamp(rest, kShortestRestMs, kLongestRestMs));
}

void Maintenance::tick(Lane* lane, bool large) {
  answer_requests();
  if (options.purge_ms < 0) return;
  // relaxed: a late look does no harm
  if (thread_runs()) return notice_activity();
  const std::uint64_t now = os::now_ms();
  if (lane != nullptr) tick_lane(*lane, now);
  const auto are_too_many = [&] { return bytes_of(PageCount{held_pages().dirty}) > allowance(); };
  sawtooth_.note(held_pages());
  high_water_.note(held_pages());
  const bool settled = large || lane == nullptr || lane->drain.has_settled();
  const bool excess = settled && are_too_many();
  if (!excess && now < due_ms_.load(std::memory_order_relaxed)) return;  // a hint
  if (purging_.exchange(true)) return;                                   // somebody else does it
  if (excess) sawtooth_.judge(held_pages(), now, static_cast<std::uint64_t>(options.purge_ms));
  if (excess && are_too_many()) {
    arena.purge(Arena::Purge::soon);
    sawtooth_.begin(held_pages());
  } else if (now >= due_ms_.load(std::memory_order_relaxed)) {  // under purging_
    arena.purge(Arena::Purge::aged);
    const std::uint64_t half_period = static_cast<std::uint64_t>(options.purge_ms) / 2;
    due_ms_.store(arena.purge_pass_ended() ? now + half_period : now + 1,
                  std::memory_order_relaxed);  // a hint
    if (arena.purge_pass_ended()) sawtooth_.forget();
  }
  purging_.store(false);
}

void Maintenance::make_up_for(PageCount pages) {
  if (pages.v <= LargeCache::kMostPagesOfOne.v || options.purge_ms < 0) return;
  const PageCount due = high_water_.due(held_pages(), os::now_ms());
  if (due.v != 0) arena.purge_pages(due);
}

void Maintenance::tick_lane(Lane& lane, std::uint64_t now) {
  const Entered entered(lane);
  LaneSlabs& slabs = lane.slabs;
  Drain& drain = lane.drain;
  const auto account = [&] {
    return Drain::Account{slabs.used_bytes, slabs.refilled_bytes, slabs.slab_bytes};
  };
  const auto period = static_cast<std::uint64_t>(options.purge_ms);
  drain.note(account(), now, period, os::thread_ran_ms);
  const bool due = now >= lane.trim_due_ms;
  if (due) {
    lane.trim_due_ms = now + period / 2;
    trim_lane(lane);
    drain.forget(account(), now);
  }
  if (drain.is_due(now)) {
    empty_magazines(lane);
    drain.begin(account());
  }
  if (!due && !drain.runs() && slabs.purge_cursor == 0) return;
  drain.note_holes(arena.purge_slabs(slabs, Arena::Purge::aged));
  if (drain.runs() && slabs.purge_cursor == 0) drain.end(account());
}

// How many free pages may stay dirty until they age.
Bytes Maintenance::allowance() const {
  const Bytes usual = kLeastDirty + bytes_of(PageCount{arena.buddy().used_pages() / kDirtyPart});
  return usual + sawtooth_.kept();
}

bool Maintenance::trim() {
  if (!heap.exists()) return false;
  Lane* const own = this_lane();
  if (own != nullptr) flush_lane(*own);
  heap.drain_pool();
  Bytes bytes = 0;
  tend_lanes(Arena::Purge::at_once, bytes);
  if (own != nullptr) {
    // What others kept at hand may have come from its slabs.
    const Entered entered(*own);
    arena.drain_inbox(own->slabs);
    bytes += arena.purge_slabs(own->slabs, Arena::Purge::at_once);
  }
  return arena.purge(Arena::Purge::at_once) + bytes != 0;
}

// What a tool outside has left in the root. One thread answers; the others see it done, or somebody
// purging.
void Maintenance::answer_requests() {
  const std::uint32_t wanted = ashlar_root.trim_wanted.load(std::memory_order_relaxed);  // or later
  if (wanted == ashlar_root.trim_done.load(std::memory_order_relaxed)) [[likely]]
    return;
  if (purging_.exchange(true)) return;
  trim();
  ashlar_root.trim_done.store(wanted);
  purging_.store(false);
}

// --- one pass -----------------------------------------------------------------------------------

// True: there was something to do, or will be in the next pass.
bool Maintenance::pass() {
  if (!heap.exists()) return false;  // with background:always it may be there first
  high_water_.note(held_pages());
  shortage_ = memory_limit.shortage();
  const auto which = shortage_ == Shortage::tight ? Arena::Purge::soon : Arena::Purge::aged;
  Bytes bytes = 0;
  const bool changed = tend_lanes(which, bytes);
  if (purging_.exchange(true)) return true;
  do {
    bytes += arena.purge(which);
    if (!arena.purge_pass_ended()) pause();
  } while (!arena.purge_pass_ended());
  purging_.store(false);
  return changed || bytes != 0;
}

// Adds up the bytes that were given back. True: a lane has changed, or its owner was at work.
bool Maintenance::tend_lanes(Arena::Purge which, Bytes& bytes) {
  const bool all = which != Arena::Purge::aged;
  bool changed = false;
  heap.for_each_lane([&](Lane& lane) {
    // Whoever leases an orphaned lane next repairs it first. The caller's own is the caller's.
    if (lane.orphaned || &lane == this_lane()) return;
    for (bool more = true; more;) {
      {
        const Frozen frozen(lane);
        changed |= !frozen;
        if (!frozen) return;
        if (lane.slabs.purge_cursor == 0) changed |= tend_lane(lane, all);
        bytes += arena.purge_slabs(lane.slabs, which);
        more = lane.slabs.purge_cursor != 0;
      }
      if (more) pause();  // for the owner, who may wait
    }
  });
  heap.with_shared_slabs([&](LaneSlabs& slabs) {
    changed |= arena.drain_inbox(slabs);
    bytes += arena.purge_slabs(slabs, which);
    changed |= slabs.purge_cursor != 0;
  });
  changed |= program_heaps.tend(which, bytes);
  return changed;
}

void Maintenance::pause() { os::futex_wait(wakeups_, wakeups_.load(), kPartPauseMs); }

// --- the thread ---------------------------------------------------------------------------------

void Maintenance::start() {
  os::note_sandbox();
  if (options.background == kBackgroundAlways) start_thread();
}

void Maintenance::start_thread() {
  if (options.background == kBackgroundNever || options.purge_ms < 0) return;
  Thread none = Thread::none;
  if (!thread_.compare_exchange_strong(none, Thread::runs)) return;
  // Such a program may not expect another thread, nor what ours asks of the kernel; glibc even ends
  // the process when a new thread is refused rseq.
  if (os::has_locked_itself_in()) return thread_.store(Thread::stopped);

  // Here and not in the thread: opening takes a low number for a moment, and later it might be the
  // one that the program counts on.
  memory_limit.find();
  const int saved_errno = errno;
  pthread_attr_t attributes;
  ::pthread_attr_init(&attributes);
  ::pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
  ::pthread_attr_setstacksize(&attributes, stack_bytes());
  // Signals are for the program's own threads.
  sigset_t every_signal, before;
  ::sigfillset(&every_signal);
  ::pthread_sigmask(SIG_SETMASK, &every_signal, &before);
  pthread_t thread;
  const bool created = ::pthread_create(&thread, &attributes, thread_main, nullptr) == 0;
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
  ::pthread_attr_destroy(&attributes);
  errno = saved_errno;
  // Without it, slow paths go on doing the work. They will not try again.
  if (!created) thread_.store(Thread::stopped);
}

void* Maintenance::thread_main(void*) {
  maintenance.at_work_.store(true);
  os::name_thread("ashlar");
  // What the program's functions allocate here comes from the lane that threads share: this thread
  // looks after lanes, and has none.
  heap.end_this_thread();
  maintenance.run();
  maintenance.at_work_.store(false);
  maintenance.wake();  // who stops us
  return nullptr;
}

void Maintenance::run() {
  unsigned quiet_passes = 0;
  std::uint32_t seen = wakeups_.load();
  while (thread_.load() == Thread::runs) {
    if (os::has_locked_itself_in()) return thread_.store(Thread::stopped);
    answer_requests();
    if (watch_.exchange(Watch::still) == Watch::stirred) quiet_passes = 0;
    quiet_passes = pass() ? 0 : quiet_passes + 1;
    Watch still = Watch::still;
    const bool sleeps =
        quiet_passes >= kQuietPasses && watch_.compare_exchange_strong(still, Watch::asleep);
    rest(seen, sleeps ? kLongSleepMs : rest_ms());
    seen = wakeups_.load();
  }
}

// Until the time is over or somebody wakes us.
void Maintenance::rest(std::uint32_t seen, std::uint32_t ms) {
  const std::uint64_t end = os::now_ms() + ms;
  for (std::uint64_t now = os::now_ms(); now < end && wakeups_.load() == seen; now = os::now_ms()) {
    std::uint64_t part = end - now;
    if (notices.are_wanted()) {
      if (os::has_locked_itself_in()) return;
      tell_of_shortage();
      part = std::min(part, kLookMs);
    } else {
      told_ = Shortage::none;  // who is told from now on knows of none
    }
    os::futex_wait(wakeups_, seen, static_cast<std::uint32_t>(part));
  }
}

// As long as it lasts, and once when it is over.
void Maintenance::tell_of_shortage() {
  const Shortage now = memory_limit.shortage();
  const Shortage before = told_;
  told_ = now;
  if (now == Shortage::none && before == Shortage::none) return;
  ashlar_notice notice = {};
  notice.event = now == Shortage::none ? ASHLAR_MEMORY_ENOUGH : ASHLAR_MEMORY_SHORT;
  notice.excess_bytes = memory_limit.excess();
  notices.tell(notice);
}

bool Maintenance::watch_memory() {
  start_thread();
  wake();
  return thread_runs();
}

void Maintenance::stir() {
  if (watch_.exchange(Watch::stirred) == Watch::asleep) wake();
}

void Maintenance::wake() {
  wakeups_++;
  os::futex_wake_one(wakeups_);
}

void Maintenance::stop_thread() {
  if (thread_.exchange(Thread::stopped) != Thread::runs) return;
  wake();
  for (std::uint32_t ms = 0; ms < kStopPatienceMs; ms++) {
    const std::uint32_t seen = wakeups_.load();
    if (!at_work_.load()) return;
    os::futex_wait(wakeups_, seen, 1);
  }
}

void Maintenance::notice_thread_exit() {
  if (os::thread_number() == static_cast<std::uint32_t>(::getpid())) stop_thread();
}

void Maintenance::after_fork_in_child() {
  purging_.store(false);
  thread_.store(Thread::none);
  at_work_.store(false);
}

}  // namespace ashlar
