// SPDX-License-Identifier: MIT
#include "processes.h"

#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

namespace ashlar::shm {

namespace {

// When this process started, from the 22nd field of its stat; 0 where there is no /proc.
std::uint64_t start_time() {
  char text[1024];
  const int fd = ::open("/proc/self/stat", O_RDONLY | O_CLOEXEC);
  if (fd < 0) return 0;
  const ssize_t length = ::read(fd, text, sizeof text - 1);
  ::close(fd);
  if (length <= 0) return 0;
  text[length] = '\0';
  const char* at = std::strrchr(text, ')');  // the name before it may hold anything
  for (int field = 2; at != nullptr && field < 22; field++) at = std::strchr(at + 1, ' ');
  std::uint64_t ticks = 0;
  while (at != nullptr && at[1] >= '0' && at[1] <= '9') {
    ticks = ticks * 10 + static_cast<std::uint64_t>(*++at - '0');
  }
  return ticks;
}

}  // namespace

void* map_private(Bytes bytes) {
  void* const memory =
      ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  return memory == MAP_FAILED ? nullptr : memory;
}

void* map_unless_forked(Bytes bytes) {
  void* const memory = map_private(bytes);
  if (memory == nullptr || ::madvise(memory, bytes, MADV_WIPEONFORK) == 0) return memory;
  unmap(memory, bytes);
  return nullptr;
}

void unmap(void* memory, Bytes bytes) { ::munmap(memory, bytes); }

int Processes::attach(const Segment& segment, bool scoped) {
  segment_ = &segment;
  table_ = &segment.at<Process>(Geometry::kProcessTable);
  scoped_ = scoped;
  own_ = static_cast<Own*>(map_unless_forked(kPageBytes));
  return own_ == nullptr ? ENOMEM : 0;
}

void Processes::detach() {
  if (own_ != nullptr) unmap(own_, kPageBytes);
  own_ = nullptr;
}

int Processes::join() {
  if (joined()) return 0;
  if (segment_->read_only()) return EACCES;
  joining_.lock();
  int error = joined() ? 0 : EAGAIN;
  for (std::uint32_t i = 0; i < kProcesses && error == EAGAIN; i++) {
    if (state_of(i).kind != ProcessState::kFree) continue;
    if (void* const held = take_place(i, ProcessState::kFree, error); held != nullptr) {
      enter(i, held);
      error = 0;
    }
  }
  joining_.unlock();
  return error;
}

// `error` stays EAGAIN when somebody else was faster.
void* Processes::take_place(std::uint32_t i, ProcessState::Kind from, int& error) {
  void* held = nullptr;
  if (const int refused = segment_->hold_place(i, held); refused != 0) {
    if (refused != EBUSY) error = refused;
    return nullptr;
  }
  raise_to(segment_->at<State>(Geometry::kState).places_end, i + 1);
  Process& process = table_[i];
  ProcessState state = process.state.load();
  const ProcessState mine{.generation = state.generation + 1,
                          .recoverer = 0,
                          .kind = ProcessState::kAttached,
                          .scoped = scoped_};
  if (state.kind == from && process.state.compare_exchange_strong(state, mine)) return held;
  Segment::release_place(held);
  return nullptr;
}

void Processes::enter(std::uint32_t i, void* held) {
  Process& process = table_[i];
  process.pid.store(static_cast<std::uint32_t>(::getpid()));
  process.start_time.store(start_time());
  char name[16] = "";
  ::prctl(PR_GET_NAME, name);
  for (Bytes c = 0; c < sizeof name; c++) process.name[c].store(name[c]);
  own_->place = i;
  own_->held.store(held);
}

void Processes::leave() {
  if (!joined()) return;
  Process& process = table_[own_->place];
  ProcessState state = process.state.load();
  ProcessState free = state;
  free.kind = ProcessState::kFree;
  process.state.compare_exchange_strong(state, free);
  Segment::release_place(own_->held.exchange(nullptr));
}

bool Processes::is_dead(std::uint32_t i) const {
  if (joined() && i == own_->place) return false;
  return state_of(i).kind == ProcessState::kAttached && !segment_->is_held(i);
}

bool Processes::begin_recovery(std::uint32_t i) {
  ProcessState state = state_of(i);
  // The state must be older than the look at the lock.
  if (state.kind != ProcessState::kAttached || !is_dead(i)) return false;
  ProcessState next = state;
  next.kind = ProcessState::kInRecovery;
  next.recoverer = static_cast<std::uint16_t>(place());
  return table_[i].state.compare_exchange_strong(state, next);
}

void Processes::end_recovery(std::uint32_t i) {
  ProcessState state = state_of(i);
  state.kind = ProcessState::kFree;
  table_[i].state.store(state);
}

void Processes::abandon_recoveries_of(std::uint32_t recoverer) {
  for (std::uint32_t i = 0; i < places_end(); i++) {
    ProcessState state = state_of(i);
    if (state.kind != ProcessState::kInRecovery || state.recoverer != recoverer) continue;
    ProcessState next = state;
    next.kind = ProcessState::kAttached;
    table_[i].state.compare_exchange_strong(state, next);
  }
}

}  // namespace ashlar::shm
