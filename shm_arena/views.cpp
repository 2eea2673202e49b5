// SPDX-License-Identifier: MIT
#include "views.h"

#include <cerrno>
#include <pthread.h>

#include "handles.h"
#include "recovery.h"

namespace ashlar::shm {

View no_view;

namespace {

// A thread's views by handle number.
struct Thread {
  Thread* next;
  Thread* prev;
  View* view[kHandles];
};

constinit thread_local Thread* t_thread = nullptr;

// What the process knows of its threads and handles.
struct Registry {
  Lock lock;
  Thread* threads = nullptr;                        // lock
  std::atomic<ashlar_shm*> handles[kHandles] = {};  // atomic: who opens or closes one → all
  std::atomic<std::uint32_t> handles_end = 0;       // atomic: likewise; none was at or behind it
  bool taken[kHandles] = {};                        // lock
  std::uint64_t last_id = 0;                        // lock
  bool has_key = false;                             // lock
  bool watches_forks = false;                       // lock
  pthread_key_t key = 0;                            // const since has_key
};
constinit Registry registry;

class Locked {
 public:
  Locked() { registry.lock.lock(); }
  ~Locked() { registry.lock.unlock(); }
};

void set_lane_kind(const ashlar_shm& arena, std::uint32_t lane, LaneState::Kind kind) {
  LaneState state = arena.lane(lane).state.load();
  state.kind = kind;
  arena.lane(lane).state.store(state);
}

void give_up_lane(View& view) {
  if (view.tag == 0) return;  // a child of fork
  empty_view(view);
  settle_handles(*view.arena, view.lane);  // what the thread has locked
  const bool plain = view.arena->lane(view.lane).state.load().plain != 0;
  set_lane_kind(*view.arena, view.lane, plain ? LaneState::kVacant : LaneState::kIdle);
}

void end_thread(void* argument) {
  auto* const thread = static_cast<Thread*>(argument);
  t_thread = nullptr;
  t_last = {};
  Locked locked;
  for (View* view : thread->view) {
    if (view == &no_view) continue;
    give_up_lane(*view);
    unmap(view, sizeof(View));
  }
  (thread->prev != nullptr ? thread->prev->next : registry.threads) = thread->next;
  if (thread->next != nullptr) thread->next->prev = thread->prev;
  unmap(thread, sizeof(Thread));
}

Thread* this_thread() {
  if (t_thread != nullptr) return t_thread;
  // Not wiped by fork: the child's one thread goes on with its table.
  void* const memory = map_private(sizeof(Thread));
  if (memory == nullptr) return nullptr;
  auto* const thread = static_cast<Thread*>(memory);
  for (View*& view : thread->view) view = &no_view;
  Locked locked;
  if (!registry.has_key && ::pthread_key_create(&registry.key, end_thread) == 0) {
    registry.has_key = true;
  }
  if (!registry.has_key || ::pthread_setspecific(registry.key, thread) != 0) {
    unmap(thread, sizeof(Thread));
    return nullptr;
  }
  thread->next = registry.threads;
  if (thread->next != nullptr) thread->next->prev = thread;
  registry.threads = thread;
  t_thread = thread;
  return thread;
}

bool try_lease(ashlar_shm& arena, std::uint32_t l, LaneState::Kind from, bool with_memory) {
  Lane& lane = arena.lane(l);
  LaneState state = lane.state.load();
  const std::uint32_t place = arena.processes.place();
  if (state.kind != from || (lane.held_pages.load() != 0) != with_memory) return false;
  if (from == LaneState::kIdle && state.process != place) return false;
  if (arena.processes.scoped() && state.plain != 0) return false;
  if (!arena.back_cursors(l)) return false;
  raise_to(arena.state().lanes_end, l + 1);
  LaneState next = state;
  next.kind = LaneState::kLeased;
  next.process = static_cast<std::uint16_t>(place);
  next.generation++;
  if (!arena.processes.scoped()) next.plain = 1;
  return lane.state.compare_exchange_strong(state, next);
}

// Lanes that hold memory come first, so that it is used. kLanes: all are leased.
std::uint32_t lease_lane(ashlar_shm& arena) {
  struct Wanted {
    LaneState::Kind kind;
    bool with_memory;
  };
  const bool scoped = arena.processes.scoped();
  for (const Wanted wanted : {Wanted{scoped ? LaneState::kIdle : LaneState::kVacant, true},
                              Wanted{scoped ? LaneState::kIdle : LaneState::kVacant, false},
                              Wanted{LaneState::kVacant, false}}) {
    const std::uint32_t end = wanted.with_memory ? arena.lanes_end() : kLanes;
    for (std::uint32_t l = 0; l < end; l++) {
      if (try_lease(arena, l, wanted.kind, wanted.with_memory)) return l;
    }
  }
  return kLanes;
}

}  // namespace

constinit thread_local LastUsed t_last;

View& find_view(const ashlar_shm& arena) {
  View* const view = t_thread == nullptr ? &no_view : t_thread->view[arena.number];
  if (view != &no_view) t_last = {arena.id, view};
  return *view;
}

View* view_for_thread(ashlar_shm& arena) {
  View* view = &view_of(arena);
  if (view->tag != 0) return view;
  if (const int error = join_arena(arena); error != 0) {
    errno = error;
    return nullptr;
  }
  arena.pages.refresh();
  Thread* const thread = this_thread();
  // A view of our own without a lane is one that fork wiped.
  if (thread != nullptr && view == &no_view) {
    void* const memory = map_unless_forked(sizeof(View));
    view = memory == nullptr ? nullptr : new (memory) View;
  }
  if (thread == nullptr || view == nullptr) {
    errno = ENOMEM;
    return nullptr;
  }
  std::uint32_t lane = lease_lane(arena);
  if (lane == kLanes && recover_dead(arena) != 0) lane = lease_lane(arena);
  if (lane == kLanes) {
    if (thread->view[arena.number] != view) unmap(view, sizeof(View));
    errno = EAGAIN;
    return nullptr;
  }
  init_view(*view, arena, lane);
  thread->view[arena.number] = view;
  t_last = {arena.id, view};
  return view;
}

bool register_handle(ashlar_shm& arena) {
  Locked locked;
  if (!registry.watches_forks) {
    Lock::watch(os::map_fork_marker());  // a child takes over locks whose holders it lacks
    registry.watches_forks = true;
  }
  for (std::uint32_t n = 0; n < kHandles; n++) {
    if (registry.taken[n]) continue;
    registry.taken[n] = true;
    arena.number = n;
    arena.id = ++registry.last_id;
    return true;
  }
  return false;
}

void publish_handle(ashlar_shm& arena) {
  raise_to(registry.handles_end, arena.number + 1);
  registry.handles[arena.number].store(&arena);
}

ashlar_shm* find_handle(const void* p) {
  const std::uint32_t end = registry.handles_end.load();
  for (std::uint32_t n = 0; n < end; n++) {
    ashlar_shm* const arena = registry.handles[n].load();
    if (arena == nullptr) continue;
    const auto at = reinterpret_cast<std::uintptr_t>(p) -
                    reinterpret_cast<std::uintptr_t>(arena->segment.base());
    if (at < arena->segment.geometry().end) return arena;
  }
  return nullptr;
}

void unregister_handle(std::uint32_t number) {
  Locked locked;
  registry.handles[number].store(nullptr);
  for (Thread* thread = registry.threads; thread != nullptr; thread = thread->next) {
    View*& view = thread->view[number];
    if (view == &no_view) continue;
    unmap(view, sizeof(View));
    view = &no_view;
  }
  registry.taken[number] = false;
}

}  // namespace ashlar::shm
