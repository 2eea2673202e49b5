// SPDX-License-Identifier: MIT
#include "drain.h"

#include "unit.h"

namespace ashlar::test {

TEST_SUITE_BEGIN("drain");

namespace {

constexpr std::uint64_t kPeriodMs = 1000;

// The processor time of the thread whose lane it is.
std::uint64_t ran_ms = 0;
std::uint64_t read_ran_ms() { return ran_ms; }

// A lane of 1 GiB that shrinks, and that makes so many bytes of holes for each byte given back.
struct Shrinking {
  Drain drain;
  Drain::Account account{kGiB, 0, kGiB};
  std::uint64_t now_ms = 10'000;
  Bytes holes_for_given = 0;

  Shrinking() {
    note();
    pass(100);
  }
  void note() { drain.note(account, now_ms, kPeriodMs, read_ran_ms); }
  void pass(std::uint64_t ms) {
    now_ms += ms;
    ran_ms += ms;
    note();
  }
  // Gives back until a drain is due, and looks. Returns how much was given back.
  Bytes shrink() {
    const Bytes before = account.used;
    while (!drain.is_due(now_ms)) {
      account.used -= 4 * kKiB;
      pass(1);
    }
    look(before - account.used);
    return before - account.used;
  }
  void look(Bytes given) {
    drain.begin(account);
    CHECK(drain.runs());
    drain.note_holes(given * holes_for_given);
    drain.end(account);
    CHECK(!drain.runs());
  }
};

}  // namespace

TEST_CASE("a lane that shrinks is looked through after a sixteenth at the latest") {
  Shrinking lane;
  for (int i = 0; i < 10; i++) {
    const Bytes used = lane.account.used;
    CHECK(lane.shrink() <= used / 16 + kMiB + 4 * kKiB);
  }
}

TEST_CASE("the more empty pages a look finds, the sooner comes the next") {
  Shrinking lane;
  const Bytes barren = lane.shrink();
  lane.holes_for_given = 8;
  lane.shrink();
  for (int i = 0; i < 10; i++) lane.shrink();
  const Bytes rich = lane.shrink();
  CHECK(rich < barren / 16);
  // And still each look is worth it: 8 MiB for a GiB.
  CHECK(rich * lane.holes_for_given >= 3 * kMiB);
  CHECK(rich * lane.holes_for_given <= 12 * kMiB);
  lane.holes_for_given = 0;
  for (int i = 0; i < 10; i++) lane.shrink();
  CHECK(lane.shrink() > 16 * rich);
}

TEST_CASE("what grew just now is left alone") {
  Shrinking lane;
  lane.account.used += kMiB;
  lane.note();
  lane.account.used /= 2;
  lane.note();
  CHECK(!lane.drain.is_due(lane.now_ms));
  lane.pass(20);
  CHECK(lane.drain.is_due(lane.now_ms));
}

TEST_CASE("time in which the thread had no core does not count") {
  Shrinking lane;
  lane.account.used += kMiB;
  lane.note();
  lane.account.used /= 2;
  lane.now_ms += 200;
  lane.pass(19);
  CHECK(!lane.drain.is_due(lane.now_ms));
  lane.pass(1);
  CHECK(lane.drain.is_due(lane.now_ms));
}

TEST_CASE("holes that are needed again end the drains for a while, and longer the next time") {
  Shrinking lane;
  lane.holes_for_given = 1;
  std::uint64_t pause_ms = 0;
  for (int i = 0; i < 3; i++) {
    const Bytes given = lane.shrink();
    lane.account.used += given;
    lane.account.refilled += given + kGiB / 64;
    lane.note();
    const std::uint64_t regret_ms = lane.now_ms;
    lane.account.used /= 2;
    lane.note();
    while (!lane.drain.is_due(lane.now_ms)) lane.pass(10);
    CHECK(lane.now_ms - regret_ms >= kPeriodMs);
    CHECK(lane.now_ms - regret_ms > pause_ms);
    pause_ms = lane.now_ms - regret_ms;
    lane.account.used = kGiB;
    lane.note();
    lane.pass(100);
    lane.drain.forget(lane.account, regret_ms);
  }
}

TEST_CASE("a few pages that are needed again end nothing") {
  Shrinking lane;
  lane.drain.begin(lane.account);
  lane.drain.note_holes(64 * kKiB);
  lane.drain.end(lane.account);
  lane.account.refilled += 64 * kKiB;
  lane.account.used /= 2;
  lane.pass(20);
  CHECK(lane.drain.is_due(lane.now_ms));
}

}  // namespace ashlar::test
