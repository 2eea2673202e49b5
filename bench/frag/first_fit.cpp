// SPDX-License-Identifier: MIT
#include "first_fit.h"

#include <sys/mman.h>

#include <algorithm>
#include <bit>

#include "ledger.h"

namespace ashlar::bench::frag {
namespace {

// The first object's address: where no one else is, and never touched.
constexpr std::uintptr_t kBegin = std::uintptr_t{1} << 44;

// Zero, and in memory only where it was touched.
template <class T>
T* map_lazily(std::size_t count) {
  void* const memory = mmap(nullptr, count * sizeof(T), PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) die("no memory for a packer's tree");
  return static_cast<T*>(memory);
}

}  // namespace

FirstFit::FirstFit() : used_(map_lazily<Words>(kPages)), tree_(map_lazily<Gaps>(2 * kPages)) {
  std::uint32_t length = kGrains * kPages;
  for (std::uint32_t level = 1; level <= kPages; level *= 2, length /= 2) {
    std::fill_n(tree_ + level, level, Gaps{length, length, length});
  }
}

unsigned char* FirstFit::take(std::size_t bytes) {
  const std::lock_guard lock(mutex_);
  const std::size_t grains = usable(bytes) / kGrain;
  if (grains > tree_[1].longest) die("first fit has no room for %zu bytes", bytes);
  const std::size_t first = find(static_cast<std::uint32_t>(grains));
  flip(first, grains);
  return reinterpret_cast<unsigned char*>(kBegin + first * kGrain);
}

void FirstFit::give(unsigned char* object, std::size_t bytes) {
  const std::lock_guard lock(mutex_);
  const std::size_t first = (reinterpret_cast<std::uintptr_t>(object) - kBegin) / kGrain;
  flip(first, usable(bytes) / kGrain);
}

std::size_t FirstFit::held() const {
  const std::lock_guard lock(mutex_);
  return pages_held_ * kPage;
}

// The first grain of the lowest gap of so many. There is one.
std::size_t FirstFit::find(std::uint32_t grains) const {
  std::size_t node = 1;
  std::size_t first = 0;
  std::size_t length = std::size_t{kGrains} * kPages;
  while (node < kPages) {
    const Gaps& left = tree_[2 * node];
    const Gaps& right = tree_[2 * node + 1];
    length /= 2;
    if (left.longest >= grains) {
      node = 2 * node;
    } else if (left.last + right.first >= grains) {
      return first + length - left.last;
    } else {
      node = 2 * node + 1;
      first += length;
    }
  }
  return first + find_in_page(node - kPages, grains);
}

std::size_t FirstFit::find_in_page(std::size_t page, std::uint32_t grains) const {
  std::uint32_t length = 0;
  for (std::uint32_t i = 0;; i++) {
    const bool used = (used_[page][i / 64] >> i % 64 & 1) != 0;
    length = used ? 0 : length + 1;
    if (length == grains) return i + 1 - grains;
  }
}

// From gap to object, or back.
void FirstFit::flip(std::size_t first, std::size_t grains) {
  const std::size_t end = first + grains;
  for (std::size_t at = first; at < end;) {
    const std::size_t bit = at % 64;
    const std::size_t count = std::min(64 - bit, end - at);
    const std::uint64_t mask = ~std::uint64_t{0} >> (64 - count) << bit;
    used_[at / kGrains][at % kGrains / 64] ^= mask;
    at += count;
  }
  std::size_t low = kPages + first / kGrains;
  std::size_t high = kPages + (end - 1) / kGrains;
  for (std::size_t node = low; node <= high; node++) {
    const bool was_held = tree_[node].longest != kGrains;
    tree_[node] = gaps_of(used_[node - kPages]);
    const bool is_held = tree_[node].longest != kGrains;
    pages_held_ += is_held;
    pages_held_ -= was_held;
  }
  for (std::uint32_t half = kGrains; low > 1; half *= 2) {
    low /= 2;
    high /= 2;
    for (std::size_t node = low; node <= high; node++) {
      tree_[node] = joined(tree_[2 * node], tree_[2 * node + 1], half);
    }
  }
}

// half: grains below either of them.
FirstFit::Gaps FirstFit::joined(const Gaps& left, const Gaps& right, std::uint32_t half) {
  return {left.first == half ? half + right.first : left.first,
          right.last == half ? half + left.last : right.last,
          std::max({left.longest, right.longest, left.last + right.first})};
}

FirstFit::Gaps FirstFit::gaps_of(const Words& page) {
  Gaps gaps{kGrains, 0, 0};
  std::uint32_t end = 0;  // of the last object so far
  for (std::uint32_t w = 0; w < page.size(); w++) {
    for (std::uint64_t bits = page[w]; bits != 0;) {
      const auto begin = static_cast<std::uint32_t>(std::countr_zero(bits));
      const auto length = static_cast<std::uint32_t>(std::countr_one(bits >> begin));
      const std::uint32_t gap = w * 64 + begin - end;
      if (end == 0) gaps.first = std::min(gaps.first, gap);
      gaps.longest = std::max(gaps.longest, gap);
      end = w * 64 + begin + length;
      bits &= begin + length == 64 ? 0 : ~std::uint64_t{0} << (begin + length);
    }
  }
  gaps.last = kGrains - end;
  gaps.longest = std::max(gaps.longest, gaps.last);
  return gaps;
}

}  // namespace ashlar::bench::frag
