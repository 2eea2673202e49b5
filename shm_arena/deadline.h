// SPDX-License-Identifier: MIT
// L0 · deadline: when a budget of microseconds is spent.
#pragma once

#include <cstdint>

#include "os.h"

namespace ashlar::shm {

class Deadline {
 public:
  constexpr Deadline() = default;  // never
  explicit Deadline(std::uint64_t budget_us) {
    const std::uint64_t now = os::now_us();
    if (budget_us < kNever - now) us_ = now + budget_us;
  }
  // Whether it will be by the end of a step that takes so long.
  bool is_over(std::uint64_t step_us = 0) const {
    return us_ != kNever && os::now_us() + step_us >= us_;
  }

 private:
  static constexpr std::uint64_t kNever = UINT64_MAX;
  std::uint64_t us_ = kNever;
};

}  // namespace ashlar::shm
