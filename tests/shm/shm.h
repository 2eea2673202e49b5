// SPDX-License-Identifier: MIT
// shm.h: arenas to try things on, processes that die, and what must hold afterwards.
#pragma once

#include <ashlar/shm.h>

#include <cstring>
#include <memory>

#include <csignal>
#include <functional>
#include <set>
#include <string>
#include <vector>

#include <sys/wait.h>

#include "../property/property.h"

namespace ashlar::test {

// A handle that closes itself.
class Shared {
 public:
  explicit Shared(ashlar_shm* arena) : arena_(arena) { REQUIRE(arena != nullptr); }
  Shared(const Shared&) = delete;
  ~Shared() { ashlar_shm_close(arena_); }
  operator ashlar_shm*() const { return arena_; }

  void* take(Bytes bytes) {
    void* const p = ashlar_shm_malloc(arena_, bytes);
    REQUIRE(p != nullptr);
    return p;
  }
  ashlar_shm_stats stats() {
    ashlar_shm_stats stats;
    REQUIRE(ashlar_shm_stat(arena_, &stats) == 0);
    return stats;
  }
  Bytes blocks() {
    const ashlar_shm_stats s = stats();
    return s.small_blocks + s.large_blocks;
  }
  // "" or what is broken.
  std::string broken() {
    char why[200] = "";
    return ashlar_shm_check(arena_, why, sizeof why) == 0 ? "" : why;
  }

 private:
  ashlar_shm* arena_;
};

inline ashlar_shm* anonymous(Bytes bytes = 16 * kMiB, unsigned flags = 0) {
  return ashlar_shm_create_anonymous(bytes, flags);
}

// A child that runs act() and leaves by _exit(0); killed by kill().
class Child {
 public:
  template <class Act>
  explicit Child(Act&& act) : pid_(::fork()) {
    if (pid_ != 0) return;
    act();
    ::_exit(0);
  }
  Child(const Child&) = delete;
  ~Child() { kill(); }

  pid_t pid() const { return pid_; }
  void send(int signal) { ::kill(pid_, signal); }
  // Whether it has; then the status as of waitpid.
  bool ended(int& status) {
    if (::waitpid(pid_, &status, WNOHANG) != pid_) return false;
    pid_ = -1;
    return true;
  }
  // Waits for its end; the status as of waitpid.
  int wait() {
    int status = -1;
    if (pid_ > 0) ::waitpid(pid_, &status, 0);
    pid_ = -1;
    return status;
  }
  void kill() {
    if (pid_ > 0) send(SIGKILL);
    wait();
  }

 private:
  pid_t pid_;
};

// Takes and gives blocks of many sizes, and looks whether one is in `held` or twice handed out.
inline void work(Shared& arena, std::uint64_t seed, const std::set<ashlar_off>& held,
                 std::uint32_t blocks = 300) {
  Random random(seed);
  std::vector<std::pair<void*, Bytes>> mine;
  for (std::uint32_t i = 0; i < blocks; i++) {
    const Bytes bytes = random.chance(2) ? random.between(32769, 200'000) : random.up_to(4000);
    void* const p = ashlar_shm_malloc(arena, bytes);
    if (p == nullptr) break;  // full
    REQUIRE(held.count(ashlar_shm_offset(arena, p)) == 0);
    fill(p, bytes, reinterpret_cast<std::uintptr_t>(p));
    mine.emplace_back(p, bytes);
  }
  REQUIRE(mine.size() > blocks / 10);
  for (const auto& [p, bytes] : mine) {
    REQUIRE(is_filled(p, bytes, reinterpret_cast<std::uintptr_t>(p)));
    ashlar_shm_free(arena, p);
  }
}

}  // namespace ashlar::test
