// SPDX-License-Identifier: MIT
#include "target.h"

#include <algorithm>
#include <cstring>
#include <unistd.h>

namespace ashlar::frag {

std::string printable(std::string name) {
  const auto is_control = [](unsigned char c) { return c < ' ' || c == 0x7f; };
  std::ranges::replace_if(name, is_control, '?');
  // To some terminals U+0080 to U+009F are commands as well.
  for (std::size_t at = 0; (at = name.find('\xc2', at)) != name.npos; at++) {
    const bool is_command = at + 1 < name.size() && (name[at + 1] & 0xe0) == 0x80;
    if (is_command) name.replace(at, 2, "?");
  }
  return name;
}

File::~File() {
  if (fd_ >= 0) ::close(fd_);
}

bool Target::read(std::uint64_t address, std::span<std::byte> out) {
  constexpr std::uint64_t kMostPages = 512;
  Residency in_memory[kMostPages];
  while (!out.empty()) {
    const std::uint64_t first = address / kPageBytes * kPageBytes;
    const std::uint64_t room = first + kMostPages * kPageBytes - address;
    if (address + out.size() < address) return false;
    const std::size_t step = std::min<std::uint64_t>(out.size(), room);
    const std::uint64_t pages = (address - first + step + kPageBytes - 1) / kPageBytes;
    residency(first, std::span(in_memory, pages));
    const auto is_there = [&](std::uint64_t page) {
      return in_memory[page].resident || in_memory[page].swapped;
    };
    // Neighbours alike go together.
    for (std::uint64_t page = 0; page < pages;) {
      std::uint64_t end = page + 1;
      while (end < pages && is_there(end) == is_there(page)) end++;
      const std::uint64_t from = std::max(first + page * kPageBytes, address);
      const std::uint64_t to = std::min(first + end * kPageBytes, address + step);
      const std::span<std::byte> part = out.subspan(from - address, to - from);
      if (!is_there(page)) {
        std::ranges::fill(part, std::byte{0});
      } else if (!copy(from, part)) {
        return false;
      }
      page = end;
    }
    address += step;
    out = out.subspan(step);
  }
  return true;
}

}  // namespace ashlar::frag
