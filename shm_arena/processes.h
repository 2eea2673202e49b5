// SPDX-License-Identifier: MIT
// L3 · processes: who is attached to a segment, and which of them live.
//
// What:    a process that takes memory holds a place in the segment's table. The kernel holds a
//          lock for it that ends with the process, whatever ends it (see Segment::hold_place).
// How:     a place is locked before its state says `attached`, and its state says `free` before it
//          is unlocked. So a place that is not free and not locked belongs to a process that died.
//          Whoever changes its state to `in recovery` recovers it; if that process dies too, its
//          own recoverer puts the state back.
// Fork:    what a child inherits of its parent's membership reads as zero: it joins by itself.
// Threads: any.
#pragma once

#include "lock.h"
#include "segment.h"

namespace ashlar::shm {

// Private zeroed memory; null: none. The second kind reads as zero again in a child of fork.
void* map_private(Bytes bytes);
void* map_unless_forked(Bytes bytes);
void unmap(void* memory, Bytes bytes);

class Processes {
 public:
  // 0, or ENOMEM.
  [[nodiscard]] int attach(const Segment& segment, bool scoped);
  void detach();

  // Makes sure that this process has a place. 0, EAGAIN: all are in use; or what the kernel says.
  [[nodiscard]] int join();
  // When all are: takes the place of a process that died. settle(place) settles what that one left
  // before this process is known to have joined. EAGAIN: all of them live.
  template <class Settle>
  [[nodiscard]] int succeed(Settle&& settle) {
    joining_.lock();
    int error = joined() ? 0 : EAGAIN;
    for (std::uint32_t i = 0; i < kProcesses && error == EAGAIN; i++) {
      if (!is_dead(i)) continue;
      if (void* const held = take_place(i, ProcessState::kAttached, error); held != nullptr) {
        settle(i);
        enter(i, held);
        error = 0;
      }
    }
    joining_.unlock();
    return error;
  }
  // Its lanes must be vacant.
  void leave();
  bool joined() const { return own_ != nullptr && own_->held.load() != nullptr; }
  std::uint32_t place() const { return own_->place; }  // joined
  bool scoped() const { return scoped_; }

  std::uint32_t places_end() const {
    const std::uint32_t end = segment_->at<State>(Geometry::kState).places_end.load();
    return end < kProcesses ? end : kProcesses;
  }
  Process& at(std::uint32_t i) const { return table_[i]; }
  ProcessState state_of(std::uint32_t i) const { return table_[i].state.load(); }
  bool is_dead(std::uint32_t i) const;
  // True for one caller, who then recovers what the dead process at that place left behind.
  [[nodiscard]] bool begin_recovery(std::uint32_t i);
  void end_recovery(std::uint32_t i);
  // A recoverer died: what it was about to recover is just dead again.
  void abandon_recoveries_of(std::uint32_t recoverer);

 private:
  struct Own {
    std::atomic<void*> held;  // atomic: this process's threads; null: has not joined
    std::uint32_t place;      // lock: joining_
  };

  // The kernel's lock on the place, whose state was `from` and says `attached` now; or null.
  void* take_place(std::uint32_t i, ProcessState::Kind from, int& error);
  void enter(std::uint32_t i, void* held);

  const Segment* segment_ = nullptr;  // const since attach, like the next three
  Process* table_ = nullptr;
  bool scoped_ = false;
  Own* own_ = nullptr;
  Lock joining_;
};

}  // namespace ashlar::shm
