// SPDX-License-Identifier: MIT
// doctor: what is wrong with a heap, in plain words.
//
// What:    findings: how many bytes, from where on it matters, why it is so, what to do about it,
//          and what that would save. It says nothing about what is too small to matter: less than
//          `kLeastBytes`, or less than `kLeastShare` of what is resident.
// Threads: pure functions.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "metrics.h"

namespace ashlar::frag {

struct Finding {
  std::string name;  // a word or two, for machines: "dirty_pages"
  std::string what;  // a sentence
  std::uint64_t bytes = 0;
  std::uint64_t threshold = 0;  // from so many bytes on it is a finding
  std::string cause;
  std::string remedy;
  std::uint64_t saving = 0;  // bytes of resident memory that the remedy gives back
};

inline constexpr std::uint64_t kLeastBytes = std::uint64_t{1} << 20;
inline constexpr double kLeastShare = 0.05;

// The most to save first.
std::vector<Finding> findings(const Snapshot& snapshot);

}  // namespace ashlar::frag
