// SPDX-License-Identifier: MIT
// text: how sizes and shares are written for people.
#pragma once

#include <cstdint>
#include <string>

namespace ashlar::frag {

// Three digits: 512 B, 64 KiB, 1.50 MiB, 138 MiB.
std::string size_text(std::uint64_t bytes);
// The same with its sign, for differences.
std::string change_text(std::int64_t bytes);
// "26 %".
std::string percent_text(std::uint64_t part, std::uint64_t whole);

}  // namespace ashlar::frag
