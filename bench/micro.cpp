// SPDX-License-Identifier: MIT
#include "micro.h"

#include <algorithm>
#include <cstdlib>
#include <numeric>

namespace ashlar::bench {

Heap heap{std::malloc, std::free, std::calloc, std::realloc, posix_memalign};

std::vector<std::uint32_t> make_order(Order order, std::size_t count) {
  std::vector<std::uint32_t> result(count);
  std::iota(result.begin(), result.end(), 0u);
  if (order == Order::lifo) std::reverse(result.begin(), result.end());
  if (order == Order::random) std::shuffle(result.begin(), result.end(), std::minstd_rand(2));
  return result;
}

}  // namespace ashlar::bench
