// SPDX-License-Identifier: MIT
// Locks in a process and its copies.
#include "lock.h"

#include <chrono>
#include <thread>

#include "heap.h"
#include "unit.h"

namespace ashlar::test {

TEST_SUITE_BEGIN("lock");

TEST_CASE("one at a time") {
  Lock lock;
  CHECK(!lock.lock());
  CHECK(lock.is_held());
  CHECK(!lock.try_lock());
  lock.unlock();
  CHECK(!lock.is_held());
  CHECK(lock.try_lock());
  lock.unlock();
}

TEST_CASE(
    "a copy of the process takes over what was held there, and nothing that it holds itself") {
  constexpr int kInherited = 1, kStolen = 2;
  REQUIRE(heap.ensure_arena());  // which tells locks how to notice
  Lock inherited;
  inherited.lock();
  const int seen = death_of([&] {
                     Lock own, other;
                     int result = own.try_lock() ? 0 : kStolen;
                     other.lock();
                     std::atomic<bool> stolen = false;
                     std::thread([&] {
                       own.lock();
                       stolen = true;
                     }).detach();
                     std::this_thread::sleep_for(std::chrono::milliseconds(200));
                     if (stolen) result |= kStolen;
                     if (inherited.lock()) result |= kInherited;
                     ::_exit(result);
                   }).status;
  CHECK(seen == kInherited);
}

TEST_CASE("where no page tells a copy what it is, the fork handler does") {
  Lock inherited;
  inherited.lock();
  const Death death = death_of([&] {
    ::alarm(10);
    Lock::watch(nullptr);
    heap.after_fork_in_child();
    ::_exit(inherited.lock() ? 7 : 8);
  });
  CHECK(death.status == 7);
}

TEST_SUITE_END();

}  // namespace ashlar::test
