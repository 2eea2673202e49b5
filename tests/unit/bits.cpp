// SPDX-License-Identifier: MIT
#include "unit.h"

namespace ashlar::test {

TEST_SUITE_BEGIN("bits");

TEST_CASE("aligning moves to the next multiple and no further") {
  for (std::size_t alignment = 1; alignment <= 4096; alignment *= 2) {
    for (std::size_t n = 0; n < 10'000; n += 1 + n / 50) {
      CHECK(align_down(n, alignment) % alignment == 0);
      CHECK(align_down(n, alignment) <= n);
      CHECK(n - align_down(n, alignment) < alignment);
      CHECK(align_up(n, alignment) % alignment == 0);
      CHECK(align_up(n, alignment) >= n);
      CHECK(align_up(n, alignment) - n < alignment);
    }
  }
}

TEST_CASE("division rounds up") {
  CHECK(divide_up(0, 7) == 0);
  CHECK(divide_up(1, 7) == 1);
  CHECK(divide_up(7, 7) == 1);
  CHECK(divide_up(8, 7) == 2);
}

TEST_CASE("powers of two have one bit") {
  CHECK(!is_power_of_two(0));
  CHECK(is_power_of_two(1));
  CHECK(is_power_of_two(std::size_t{1} << 63));
  CHECK(!is_power_of_two(6));
}

TEST_CASE("a range of bits holds these bits and no others") {
  for (unsigned first = 0; first < 64; first++) {
    for (unsigned count = 0; first + count <= 64; count++) {
      const std::uint64_t range = bit_range(first, count);
      REQUIRE(static_cast<unsigned>(std::popcount(range)) == count);
      if (count != 0) {
        REQUIRE(lowest_bit(range) == first);
        REQUIRE(63 - static_cast<unsigned>(std::countl_zero(range)) == first + count - 1);
      }
    }
  }
}

TEST_CASE("each bit of a run is visited once, in order, one call a word") {
  for (std::uint32_t first = 0; first < 130; first++) {
    for (std::uint32_t count = 0; count < 200; count++) {
      std::uint32_t next = first;
      std::uint32_t last_word = kNone;
      for_each_word(first, count, [&](std::uint32_t w, std::uint64_t mask) {
        REQUIRE(w != last_word);
        last_word = w;
        REQUIRE(mask != 0);
        for (; mask != 0; mask &= mask - 1) REQUIRE(w * 64 + lowest_bit(mask) == next++);
      });
      REQUIRE(next == first + count);
    }
  }
}

TEST_CASE("units of measure agree with each other") {
  CHECK(pages_for(0).v == 0);
  CHECK(pages_for(1).v == 1);
  CHECK(pages_for(kPageBytes).v == 1);
  CHECK(pages_for(kPageBytes + 1).v == 2);
  CHECK(bytes_of(PageCount{kNone}) == Bytes{kNone} * 4096);  // no overflow at 32 bits
  CHECK(chunk_of(PageIndex{511}).v == 0);
  CHECK(chunk_of(PageIndex{512}).v == 1);
  CHECK(unit_of(PageIndex{31}).v == 1);
  CHECK(first_page(UnitIndex{3}).v == 48);
  CHECK(first_page(chunk_of(UnitIndex{33})).v == 512);
}

TEST_SUITE_END();

}  // namespace ashlar::test
