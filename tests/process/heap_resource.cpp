// SPDX-License-Identifier: MIT
// Containers of the standard library in a heap of their own.
#include <ashlar/heap.hpp>
#include <memory_resource>
#include <string>
#include <unordered_map>
#include <vector>

#include "expect.h"

int main() {
  it("containers live in a heap, and go with it");
  ashlar_stats before, after;
  ashlar_get_stats(&before);
  {
    ashlar::heap_resource heap;
    auto* const words = new (heap.allocate(sizeof(std::pmr::vector<std::pmr::string>),
                                           alignof(std::pmr::vector<std::pmr::string>)))
        std::pmr::vector<std::pmr::string>(&heap);
    for (int i = 0; i < 10'000; i++)
      words->emplace_back("a word that is too long to be kept inside");
    EXPECT(heap.stats().objects, >=, 10'002);
    EXPECT((*words)[9'999] == (*words)[0], ==, 1);
    std::pmr::unordered_map<int, int> counts(&heap);
    for (int i = 0; i < 1000; i++) counts[i]++;
    EXPECT(counts.size(), ==, 1000);
    EXPECT(heap.is_equal(heap), ==, 1);
    EXPECT(heap.is_equal(*std::pmr::new_delete_resource()), ==, 0);
  }
  ashlar_get_stats(&after);
  EXPECT(after.allocated, <=, before.allocated + 64);

  it("alignments hold, also those beyond a page");
  ashlar::heap_resource heap;
  for (std::size_t alignment = 1; alignment <= 1 << 20; alignment *= 2) {
    EXPECT(reinterpret_cast<std::uintptr_t>(heap.allocate(100, alignment)) % alignment, ==, 0);
  }

  it("a heap that cannot be is an exception");
  bool thrown = false;
  try {
    ashlar::heap_resource none(nullptr, 0);
  } catch (const std::bad_alloc&) {
    thrown = true;
  }
  EXPECT(thrown, ==, 1);
  thrown = false;
  try {
    static_cast<void>(heap.allocate(std::size_t{1} << 60));
  } catch (const std::bad_alloc&) {
    thrown = true;
  }
  EXPECT(thrown, ==, 1);
  return verdict();
}
