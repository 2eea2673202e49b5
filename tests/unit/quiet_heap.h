// SPDX-License-Identifier: MIT
// The process's heap without the thread of its own, which would work in it beside the test and
// reads options that tests change. So its invariants hold while the test's own threads rest.
#pragma once

#include "heap.h"
#include "maintenance.h"
#include "options.h"
#include "unit.h"

namespace ashlar::test {

[[maybe_unused]] inline const auto no_thread = options.background = kBackgroundNever;

// What is wrong with it; empty: nothing.
inline std::string broken() {
  std::string found = sound(arena.check_invariants());
  heap.for_each_lane([&](const Lane& lane) { found += sound(check_invariants(lane)); });
  return found;
}

}  // namespace ashlar::test
