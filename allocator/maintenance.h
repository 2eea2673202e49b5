// SPDX-License-Identifier: MIT
// L4 · maintenance: what a program no longer uses goes back to the kernel, also when it sleeps.
//
// What:    ages free pages and gives back those that were not used for purge_ms; gives back empty
//          pages inside slabs; takes slots out of magazines that are not used.
// How:     what is given back was idle from one pass to the next, half a period or less. A process
//          of one thread does it in its own slow paths, a millisecond at a time. Once a second
//          thread allocates, a thread of ours does it for all; it freezes one lane after the
//          other and does what the owner would (thread_cache: Frozen, tend_lane). When two passes
//          in a row find nothing to do and no slow path was taken, it sleeps until one is.
//          While the program wants notices (notices), it looks after the memory limit twice a
//          second, asleep or not, and tells the program when memory is short.
// Thread:  called "ashlar", takes no signals, is not there after fork (the child starts its own),
//          ends at exit, when the process's first thread ends without it, and when the program
//          locks itself in (seccomp). Slow paths do the work then.
// Threads: any.
#pragma once

#include <atomic>

#include "high_water.h"
#include "memory_limit.h"
#include "thread_cache.h"

namespace ashlar {

class Maintenance {
 public:
  constexpr Maintenance() = default;

  // From every slow path: the thread looks again, and wakes up for it.
  void notice_activity() {
    if (watch_.load(std::memory_order_relaxed) != Watch::stirred) stir();  // a late look is enough
  }
  // From slow paths of `lane`, which may be null. Reads a coarse clock; mostly that is all.
  // `large`: a large block was given back.
  void tick(Lane* lane, bool large = false);
  // A block of so many pages was taken, or grew to that. Before it is touched, free pages go back
  // for it if there would be more in memory than ever.
  void make_up_for(PageCount pages);
  // Gives back all that can be given back now. True if memory went to the kernel.
  bool trim();

  // Whether lanes whose threads sleep or are gone are looked after.
  bool thread_runs() const { return thread_.load(std::memory_order_relaxed) == Thread::runs; }

  // From the library's constructor.
  void start();
  // Starts the thread unless it runs or may not. The caller is in none of our critical sections.
  void start_thread();
  // The same for who wants to be told of shortages. False: nobody can look after the memory.
  [[nodiscard]] bool watch_memory();
  // At exit: the thread ends, or will not be in our way.
  void stop_thread();
  // The calling thread ends. If it is the process's first one, the last one to end ends the
  // process, with its own stack and signals; that must not be ours.
  void notice_thread_exit();
  void after_fork_in_child();

 private:
  enum class Thread : std::uint32_t { none, runs, stopped };
  // What happened since the last pass began: a slow path, none, or none and the thread sleeps.
  enum class Watch : std::uint32_t { stirred, still, asleep };

  static void* thread_main(void*);
  void run();
  void stir();
  void answer_requests();
  bool pass();
  bool tend_lanes(Arena::Purge which, Bytes& bytes);
  void pause();
  void rest(std::uint32_t seen, std::uint32_t ms);
  void tell_of_shortage();
  void tick_lane(Lane& lane, std::uint64_t now);
  Bytes allowance() const;
  std::uint32_t rest_ms() const;
  void wake();

  Shortage shortage_ = Shortage::none;         // thread: as of the last pass
  Shortage told_ = Shortage::none;             // thread: what the program was told last
  std::atomic<std::uint64_t> due_ms_ = 0;      // atomic: any → any; when pages may be due
  std::atomic<bool> purging_ = false;          // atomic: any → any; somebody purges free pages
  Sawtooth sawtooth_;                          // lock: purging_, or advice
  HighWater high_water_;                       // advice
  std::atomic<Thread> thread_ = Thread::none;  // atomic: any → any
  std::atomic<std::uint32_t> wakeups_ = 0;     // atomic: counts; the thread sleeps on it
  std::atomic<Watch> watch_ = Watch::stirred;  // atomic: thread ↔ slow paths
  std::atomic<bool> at_work_ = false;          // atomic: thread → stop_thread
};

extern constinit Maintenance maintenance;

}  // namespace ashlar
