// SPDX-License-Identifier: MIT
// Many small objects in one thread, most of which die young, as in the interpreters and symbolic
// programs that Zorn and Grunwald traced ("Empirical Measurements of Six Allocation-intensive C
// Programs", 1992): nine of ten are gone before 64 others have come, few live long.
#include "program.h"

int main() {
  using namespace ashlar::bench;
  require_expected_malloc();
  constexpr std::size_t kObjects = 120'000'000, kYoung = 64, kOld = 20'000;
  constexpr std::array<std::uint16_t, 16> kSizes = {16, 16, 16, 24, 24, 24, 32,  32,
                                                    32, 40, 48, 48, 64, 96, 160, 400};
  std::vector<void*> objects(kYoung + kOld);
  Random random(1);
  for (std::size_t i = 0; i < kObjects; i++) {
    const std::uint32_t dice = random.next();
    const std::size_t slot = dice % 10 != 0 ? dice / 16 % kYoung : kYoung + random.below(kOld);
    std::free(objects[slot]);
    objects[slot] = take(kSizes[dice >> 28]);
  }
  for (void* object : objects) std::free(object);
}
