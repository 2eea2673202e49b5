// SPDX-License-Identifier: MIT
#include "by_size.h"

namespace ashlar::bench::frag {
namespace {

// The first page: where no one else is, and never touched; FirstFit's are elsewhere.
constexpr std::uintptr_t kBegin = std::uintptr_t{1} << 45;

}  // namespace

unsigned char* BySize::take(std::size_t bytes) {
  const std::size_t size = usable(bytes);
  if (size > kMostShared) return large_.take(bytes);
  const std::lock_guard lock(mutex_);
  Pages& of_size = with_room_[size / kGrain];
  const std::uint32_t page = page_with_room(of_size);
  auto& used = pages_[page].used;
  std::size_t i = 0;
  while (used[i]) i++;
  used.set(i);
  if (used.count() == kPage / size) of_size.erase(page);
  return reinterpret_cast<unsigned char*>(kBegin + page * kPage + i * size);
}

void BySize::give(unsigned char* object, std::size_t bytes) {
  const std::size_t size = usable(bytes);
  if (size > kMostShared) return large_.give(object, bytes);
  const std::lock_guard lock(mutex_);
  const std::size_t offset = reinterpret_cast<std::uintptr_t>(object) - kBegin;
  const auto page = static_cast<std::uint32_t>(offset / kPage);
  auto& used = pages_[page].used;
  used.reset(offset % kPage / size);
  if (used.any()) {
    with_room_[size / kGrain].insert(page);
  } else {
    with_room_[size / kGrain].erase(page);
    empty_.insert(page);
  }
}

std::size_t BySize::held() const {
  const std::lock_guard lock(mutex_);
  return (pages_.size() - empty_.size()) * kPage + large_.held();
}

std::uint32_t BySize::page_with_room(Pages& of_size) {
  if (of_size.empty()) {
    if (empty_.empty()) {
      empty_.insert(static_cast<std::uint32_t>(pages_.size()));
      pages_.emplace_back();
    }
    of_size.insert(empty_.extract(empty_.begin()));
  }
  return *of_size.begin();
}

}  // namespace ashlar::bench::frag
