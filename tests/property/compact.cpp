// SPDX-License-Identifier: MIT
// Programs that follow hints while they go on allocating and freeing: what they hold never changes.
#include "compact.h"

#include <sys/wait.h>

#include <mutex>
#include <thread>

#include "../unit/quiet_heap.h"
#include "heap.h"
#include "maintenance.h"
#include "property.h"

namespace ashlar::test {

namespace {

using Object = Stamped;

Object make(Random& random, bool dense) {
  const Bytes bytes = std::max(random.up_to(20'000), 16u);
  const ClassIndex c = class_for(bytes);
  const Object object{dense ? compactor.take(c, bytes) : take_slot(c, bytes), bytes, random.next()};
  REQUIRE(object.p != nullptr);
  fill(object.p, object.bytes, object.stamp);
  return object;
}

void move(Object& object) {
  void* const to = compactor.move(object.p);
  if (to == nullptr) return;
  REQUIRE(to != object.p);
  object.p = to;
  REQUIRE(is_filled(object.p, object.bytes, object.stamp));
}

void move_all(std::vector<Object>& objects) {
  for (Object& object : objects) {
    if (compactor.hint(object.p) != 0) move(object);
  }
}

}  // namespace

TEST_CASE("what a program holds stays what it was, whatever it moves") {
  for_seeds(3, [](Random& random) {
    std::vector<Object> objects;
    for (std::uint32_t i = 0; i < steps(60'000); i++) {
      const std::uint32_t swing = i / 5000 % 2 == 0 ? 60 : 40;
      if (objects.empty() || random.chance(swing)) {
        trace.step("take, of %zu", objects.size());
        objects.push_back(make(random, random.chance(10)));
      } else {
        const Object object = pick(objects, random);
        trace.step("give %p, %zu bytes", object.p, object.bytes);
        REQUIRE(is_filled(object.p, object.bytes, object.stamp));
        if (random.chance(10)) {
          compactor.give(object.p, "free");
        } else {
          give_slot(object.p);
        }
      }
      if (!objects.empty() && random.chance(30)) {
        Object& object = objects[random.below(objects.size())];
        trace.step("move %p, score %u", object.p, arena.score_of(object.p));
        move(object);
      }
      if (random.below(500) == 0) {
        trace.step("plan");
        compactor.make_plan();
      }
      if (random.below(2000) == 0) {
        trace.step("move all");
        move_all(objects);
      }
      if (random.below(3000) == 0) maintenance.trim();
      if (i % 1000 == 0) REQUIRE(broken() == "");
    }
    for (const Object& object : objects) {
      REQUIRE(is_filled(object.p, object.bytes, object.stamp));
      give_slot(object.p);
    }
    REQUIRE(broken() == "");
  });
}

TEST_CASE("a child of fork moves what it has, and its parent does not notice") {
  for_seeds(5, [](Random& random) {
    std::vector<Object> objects;
    for (int i = 0; i < 3000; i++) objects.push_back(make(random, false));
    for (int i = 0; i < 2000; i++) give_slot(pick(objects, random).p);
    compactor.make_plan();
    move_all(objects);
    const pid_t child = ::fork();
    if (child == 0) {
      for (int i = 0; i < 500; i++) give_slot(pick(objects, random).p);
      compactor.make_plan();
      move_all(objects);
      bool right = broken() == "";
      for (const Object& o : objects) right &= is_filled(o.p, o.bytes, o.stamp);
      ::_exit(right ? 0 : 1);
    }
    int status = -1;
    ::waitpid(child, &status, 0);
    REQUIRE(status == 0);
    compactor.make_plan();
    move_all(objects);
    for (const Object& object : objects) {
      REQUIRE(is_filled(object.p, object.bytes, object.stamp));
      give_slot(object.p);
    }
    REQUIRE(broken() == "");
  });
}

TEST_CASE("several threads move each other's objects and their own") {
  constexpr unsigned kThreads = 4;
  struct Shared {
    std::mutex mutex;
    std::vector<Object> objects;
  } shared[kThreads];
  std::atomic<int> changed = 0;
  std::vector<std::thread> threads;
  for (unsigned t = 0; t < kThreads; t++) {
    threads.emplace_back([&, t] {
      Random random(t + 1);
      for (std::uint32_t i = 0; i < steps(30'000); i++) {
        Shared& one = shared[random.chance(70) ? t : random.below(kThreads)];
        const std::lock_guard lock(one.mutex);
        if (one.objects.empty() || random.chance(i / 3000 % 2 == 0 ? 60 : 40)) {
          one.objects.push_back(make(random, false));
        } else if (random.chance(50)) {
          const Object object = pick(one.objects, random);
          changed += !is_filled(object.p, object.bytes, object.stamp);
          give_slot(object.p);
        } else {
          Object& object = one.objects[random.below(one.objects.size())];
          if (void* const to = compactor.move(object.p)) object.p = to;
          changed += !is_filled(object.p, object.bytes, object.stamp);
        }
        if (random.below(1000) == 0) compactor.make_plan();
      }
      heap.end_this_thread();
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(changed == 0);
  for (Shared& one : shared) {
    for (const Object& object : one.objects) {
      REQUIRE(is_filled(object.p, object.bytes, object.stamp));
      give_slot(object.p);
    }
  }
  heap.drain_pool();
  CHECK(broken() == "");
}

}  // namespace ashlar::test
