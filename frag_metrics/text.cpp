// SPDX-License-Identifier: MIT
#include "text.h"

#include <fmt/format.h>

namespace ashlar::frag {

std::string size_text(std::uint64_t bytes) {
  if (bytes < 1024) return fmt::format("{} B", bytes);
  double n = static_cast<double>(bytes);
  const char* unit = "";
  for (const char* next : {"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"}) {
    if (n < 1023.5) break;
    n /= 1024;
    unit = next;
  }
  const int decimals = n < 9.995 ? 2 : n < 99.95 ? 1 : 0;
  return fmt::format("{:.{}f} {}", n, decimals, unit);
}

std::string change_text(std::int64_t bytes) {
  if (bytes == 0) return "0";
  const auto size = static_cast<std::uint64_t>(bytes < 0 ? -bytes : bytes);
  return fmt::format("{}{}", bytes < 0 ? '-' : '+', size_text(size));
}

std::string percent_text(std::uint64_t part, std::uint64_t whole) {
  if (whole == 0) return "-";
  const double percent = 100 * static_cast<double>(part) / static_cast<double>(whole);
  return part != 0 && percent < 0.5 ? "<1 %" : fmt::format("{:.0f} %", percent);
}

}  // namespace ashlar::frag
