// SPDX-License-Identifier: MIT
// Objects of different threads in one cache line (Berger and others, "Hoard", ASPLOS 2000).
//
//   active    each thread allocates a small object, writes it many times, frees it, and again:
//             an allocator that hands neighbours to two threads makes them wait for each other
//   passive   the first object of each thread comes from the main thread, where they may well be
//             neighbours; an allocator that gives a freed one to whoever freed it keeps them so
#include "program.h"

int main(int argc, char** argv) {
  using namespace ashlar::bench;
  require_expected_malloc();
  const bool passive = chosen(argc, argv, "passive", "active");
  constexpr std::size_t kThreads = 2, kObjects = 120'000, kWrites = 1000, kBytes = 8;
  std::array<void*, kThreads> first = {};
  if (passive) {
    for (void*& object : first) object = take(kBytes);
  }
  run_threads(kThreads, [&first](std::size_t thread) {
    void* object = first[thread];
    for (std::size_t i = 0; i < kObjects; i++) {
      if (object == nullptr) object = take(kBytes);
      auto* const bytes = static_cast<volatile char*>(object);
      for (std::size_t write = 0; write < kWrites; write++) {
        for (std::size_t at = 0; at < kBytes; at++) bytes[at] = static_cast<char>(bytes[at] + 1);
      }
      std::free(object);
      object = nullptr;
    }
  });
}
