// SPDX-License-Identifier: MIT
// L0 · check: text without malloc, and the two kinds of check.
//
// ASHLAR_ASSERT is for our own errors and compiled out of release builds. fatal() is for
// corruption that the user's program caused; it is always there, writes one line to stderr
// with write(2), and aborts. Both are async-signal-safe and never allocate.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace ashlar {

// A line of text in a fixed buffer. What does not fit is cut.
class Text {
 public:
  Text& put(std::string_view s);
  Text& put(char c) { return put(std::string_view(&c, 1)); }
  Text& decimal(std::uint64_t n);
  Text& hex(std::uint64_t n);                           // 0x…
  Text& column(std::string_view s, std::size_t width);  // right-aligned
  // A size a person can read: 512 B, 64 KiB, 1.5 MiB.
  Text& size(std::uint64_t bytes);
  Text& fixed(std::uint64_t thousandths, unsigned digits);  // 1234, 2 → 1.23

  std::string_view view() const { return {buffer_, length_}; }
  void clear() { length_ = 0; }
  void write_to(int fd) const;  // whole text; retries short writes, keeps errno

 private:
  std::size_t length_ = 0;
  char buffer_[480];
};

// One line on stderr, "ashlar: " in front, then abort().
[[noreturn, gnu::cold]] void fatal(const Text& message);
[[noreturn, gnu::cold]] void fatal(std::string_view message);
// The same of a caller's argument: "free(): 0x1234 was freed already".
[[noreturn, gnu::cold]] void refuse(const char* caller, const void* what, std::string_view why);
// One line on stderr, "ashlar: warning: " in front.
[[gnu::cold]] void warn(const Text& message);

[[noreturn, gnu::cold]] void assertion_failed(const char* expression, const char* file, int line);

#ifdef NDEBUG
#define ASHLAR_ASSERT(expression) ((void)0)
#else
#define ASHLAR_ASSERT(expression) \
  ((expression) ? (void)0 : ::ashlar::assertion_failed(#expression, __FILE__, __LINE__))
#endif

}  // namespace ashlar
