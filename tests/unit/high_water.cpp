// SPDX-License-Identifier: MIT
#include "high_water.h"

#include <algorithm>
#include <random>

#include "unit.h"

namespace ashlar::test {

TEST_SUITE_BEGIN("high_water");

namespace {

constexpr std::uint64_t kStartMs = 10'000;
constexpr std::uint64_t kLongMs = 60'000;  // until there is all the credit that there can be

// It has seen so many pages, and has all credit.
void prepare(HighWater& water, HighWater::Pages pages) {
  CHECK(water.due(pages, kStartMs).v == 0);
  CHECK(water.due(pages, kStartMs + kLongMs).v == 0);
}

}  // namespace

TEST_CASE("what a block lifts the mark by goes back") {
  HighWater water;
  prepare(water, {1000, 3000});
  CHECK(water.due({2000, 3000}, kStartMs + kLongMs).v == 1000);
  // It did: the mark is where it was.
  CHECK(water.due({2100, 2000}, kStartMs + kLongMs).v == 100);
}

TEST_CASE("below the mark nothing goes back") {
  HighWater water;
  prepare(water, {4000, 0});
  CHECK(water.due({1000, 3000}, kStartMs + kLongMs).v == 0);
  CHECK(water.due({500, 3400}, kStartMs + kLongMs).v == 0);
}

TEST_CASE("no more goes back than there is, and what is used lifts the mark") {
  HighWater water;
  prepare(water, {1000, 200});
  CHECK(water.due({2000, 200}, kStartMs + kLongMs).v == 200);
  CHECK(water.due({2000, 0}, kStartMs + kLongMs).v == 0);
  CHECK(water.due({1500, 500}, kStartMs + kLongMs).v == 0);  // that much was used
}

TEST_CASE("a tick notes how much there was") {
  HighWater water;
  prepare(water, {1000, 0});
  water.note({2000, 3000});
  CHECK(water.due({1000, 4000}, kStartMs + kLongMs).v == 0);
  CHECK(water.due({1000, 4001}, kStartMs + kLongMs).v == 1);
}

TEST_CASE("a program that has just started has no credit") {
  HighWater water;
  CHECK(water.due({1000, 1000}, kStartMs).v == 0);
  CHECK(water.due({2000, 1000}, kStartMs + 1).v == 0);
}

TEST_CASE("threads whose clocks differ by a moment gain nothing by it") {
  HighWater water;
  CHECK(water.due({1000, 0}, kStartMs + 1).v == 0);
  CHECK(water.due({9000, 8192}, kStartMs).v == 0);
  CHECK(water.due({9500, 8192}, kStartMs + 2).v == 0);
}

TEST_CASE("whatever happens, what goes back is bounded by the time") {
  std::mt19937 random(1);
  HighWater water;
  std::uint64_t now_ms = kStartMs;
  std::uint64_t returned = 0;
  for (int step = 0; step < 10'000; step++) {
    const HighWater::Pages pages{static_cast<std::uint32_t>(random() % 10'000 + step),
                                 static_cast<std::uint32_t>(random() % 10'000)};
    const PageCount due = water.due(pages, now_ms);
    CHECK(due.v <= pages.dirty);
    returned += due.v;
    CHECK(returned <= 4 * (now_ms - kStartMs));
    now_ms += random() % 20;
  }
  CHECK(returned > 0);
}

TEST_SUITE_END();

}  // namespace ashlar::test
