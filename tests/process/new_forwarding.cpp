// SPDX-License-Identifier: MIT
// A program may replace `operator new(size_t)` and `operator delete(void*)`, and their aligned
// twins, alone: the other forms must then go through its own, as the standard says.
#include "expect.h"

#include <new>

namespace {

int news, deletes, aligned_news, aligned_deletes;
bool refuse;
constexpr std::align_val_t wide{64};

}  // namespace

void* operator new(size_t size) {
  ++news;
  if (refuse) throw std::bad_alloc();
  return malloc(size);
}

void operator delete(void* block) noexcept {
  ++deletes;
  free(block);
}

void* operator new(size_t size, std::align_val_t alignment) {
  ++aligned_news;
  if (refuse) throw std::bad_alloc();
  return aligned_alloc(static_cast<size_t>(alignment), (size + 63) / 64 * 64);
}

void operator delete(void* block, std::align_val_t) noexcept {
  ++aligned_deletes;
  free(block);
}

#define GOES_THROUGH(counter, call)              \
  do {                                           \
    it(#call " goes through the program's own"); \
    int const before = counter;                  \
    call;                                        \
    EXPECT(counter - before, ==, 1);             \
  } while (0)

int main() {
  void *a, *b, *c;
  GOES_THROUGH(news, a = operator new[](40));
  GOES_THROUGH(news, b = operator new(40, std::nothrow));
  GOES_THROUGH(news, c = operator new[](40, std::nothrow));
  GOES_THROUGH(deletes, operator delete[](a));
  GOES_THROUGH(deletes, operator delete(b, std::nothrow));
  GOES_THROUGH(deletes, operator delete[](c, std::nothrow));
  GOES_THROUGH(deletes, operator delete (operator new(40), size_t{40}));
  GOES_THROUGH(deletes, operator delete[](operator new[](40), size_t{40}));

  GOES_THROUGH(aligned_news, a = operator new[](40, wide));
  GOES_THROUGH(aligned_news, b = operator new(40, wide, std::nothrow));
  GOES_THROUGH(aligned_news, c = operator new[](40, wide, std::nothrow));
  GOES_THROUGH(aligned_deletes, operator delete[](a, wide));
  GOES_THROUGH(aligned_deletes, operator delete(b, wide, std::nothrow));
  GOES_THROUGH(aligned_deletes, operator delete[](c, wide, std::nothrow));
  GOES_THROUGH(aligned_deletes, operator delete (operator new(40, wide), size_t{40}, wide));
  GOES_THROUGH(aligned_deletes, operator delete[](operator new[](40, wide), size_t{40}, wide));

  it("a nothrow form turns the bad_alloc of the program's own into null");
  refuse = true;
  EXPECT(operator new(40, std::nothrow), ==, nullptr);
  EXPECT(operator new[](40, std::nothrow), ==, nullptr);
  EXPECT(operator new(40, wide, std::nothrow), ==, nullptr);
  EXPECT(operator new[](40, wide, std::nothrow), ==, nullptr);
  refuse = false;
  return verdict();
}
