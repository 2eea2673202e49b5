// SPDX-License-Identifier: MIT
#include "sawtooth.h"

#include <algorithm>
#include <random>

#include "unit.h"

namespace ashlar::test {

TEST_SUITE_BEGIN("sawtooth");

namespace {

constexpr std::uint64_t kPeriodMs = 1000;
constexpr std::uint32_t kUsual = 256;  // dirty pages that are never too many

// An arena, a tick for each step.
struct Load {
  Sawtooth sawtooth;
  Sawtooth::Pages pages{0, 0};
  std::uint64_t now_ms = 10'000;
  std::uint32_t returned = 0;  // pages, to the kernel

  void take(std::uint32_t n) {
    pages.used += n;
    pages.dirty -= std::min(n, pages.dirty);
    tick();
  }
  void give(std::uint32_t n) {
    pages.used -= n;
    pages.dirty += n;
    tick();
  }
  // Freed and taken at once, where the new one does not fit.
  void replace(std::uint32_t n) {
    pages.dirty += n;
    tick();
  }
  bool too_many() const {
    return bytes_of(PageCount{pages.dirty}) > bytes_of(PageCount{kUsual}) + sawtooth.kept();
  }
  void tick() {
    now_ms++;
    sawtooth.note(pages);
    if (!too_many()) return;
    sawtooth.judge(pages, now_ms, kPeriodMs);
    if (!too_many()) return;
    returned += pages.dirty;
    pages.dirty = 0;
    sawtooth.begin(pages);
  }
};

constexpr int kSteps = 100;

}  // namespace

TEST_CASE("the first trough goes back, the next ones are kept") {
  Load load;
  for (int tooth = 0; tooth < 5; tooth++) {
    for (int i = 0; i < kSteps; i++) load.take(100);
    const std::uint32_t before = load.returned;
    for (int i = 0; i < kSteps; i++) load.give(100);
    if (tooth == 0) CHECK(load.returned >= kSteps * 100 - kUsual);
    if (tooth != 0) CHECK(load.returned == before);
  }
}

TEST_CASE("teeth that are a period apart are none") {
  Load load;
  for (int tooth = 0; tooth < 3; tooth++) {
    for (int i = 0; i < kSteps; i++) load.take(100);
    load.now_ms += kPeriodMs;
    for (int i = 0; i < kSteps; i++) load.give(100);
    CHECK(load.pages.dirty <= kUsual);
  }
}

TEST_CASE("a program that grows small keeps nothing, whatever it did before") {
  Load load;
  std::mt19937 random(1);
  Bytes most_kept = 0;
  for (int i = 0; i < 10 * kSteps; i++) load.take(20);
  for (int i = 0; i < 100 * kSteps; i++) {  // it replaces blocks by others
    const std::uint32_t n = random() % 50;
    switch (random() % 3) {
      case 0: load.take(n); break;
      case 1: load.give(n); break;
      case 2: load.replace(n / 8); break;
    }
    most_kept = std::max<Bytes>(most_kept, load.sawtooth.kept());
  }
  CHECK(most_kept > 0);
  while (load.pages.used > 200) load.give(std::min(load.pages.used, 100u));
  CHECK(load.pages.dirty <= kUsual);
}

TEST_CASE("a deeper trough than any before goes back") {
  Load load;
  for (int i = 0; i < 10 * kSteps; i++) load.take(100);
  for (int tooth = 0; tooth < 5; tooth++) {
    for (int i = 0; i < kSteps; i++) load.give(100);
    for (int i = 0; i < kSteps; i++) load.take(100);
  }
  const std::uint32_t before = load.returned;
  for (int i = 0; i < 9 * kSteps; i++) load.give(100);
  CHECK(load.returned >= before + 9 * kSteps * 100 - kUsual);
}

TEST_CASE("what is kept is forgotten by and by") {
  Load load;
  for (int tooth = 0; tooth < 2; tooth++) {
    for (int i = 0; i < kSteps; i++) load.take(100);
    for (int i = 0; i < kSteps; i++) load.give(100);
  }
  const Bytes kept = load.sawtooth.kept();
  CHECK(kept >= bytes_of(PageCount{kSteps * 100 - kUsual}));
  load.sawtooth.forget();
  CHECK(load.sawtooth.kept() <= kept / 2);
}

TEST_SUITE_END();

}  // namespace ashlar::test
