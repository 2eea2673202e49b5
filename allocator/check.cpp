// SPDX-License-Identifier: MIT
#include "check.h"

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <unistd.h>

namespace ashlar {

Text& Text::put(std::string_view s) {
  const std::size_t room = sizeof buffer_ - length_;
  const std::size_t n = s.size() < room ? s.size() : room;
  std::memcpy(buffer_ + length_, s.data(), n);
  length_ += n;
  return *this;
}

Text& Text::decimal(std::uint64_t n) {
  char digits[20];
  std::size_t first = sizeof digits;
  do {
    digits[--first] = static_cast<char>('0' + n % 10);
    n /= 10;
  } while (n != 0);
  return put({digits + first, sizeof digits - first});
}

Text& Text::hex(std::uint64_t n) {
  char digits[16];
  std::size_t first = sizeof digits;
  do {
    digits[--first] = "0123456789abcdef"[n % 16];
    n /= 16;
  } while (n != 0);
  return put("0x").put({digits + first, sizeof digits - first});
}

Text& Text::column(std::string_view s, std::size_t width) {
  for (std::size_t i = s.size(); i < width; i++) put(' ');
  return put(s);
}

Text& Text::fixed(std::uint64_t thousandths, unsigned digits) {
  std::uint64_t unit = 1000;
  for (unsigned i = 0; i < digits; i++) unit /= 10;
  thousandths += unit / 2;
  decimal(thousandths / 1000);
  if (digits == 0) return *this;
  put('.');
  std::uint64_t rest = thousandths % 1000;
  for (unsigned i = 0; i < digits; i++) {
    put(static_cast<char>('0' + rest / 100));
    rest = rest % 100 * 10;
  }
  return *this;
}

Text& Text::size(std::uint64_t bytes) {
  static constexpr std::string_view kSuffix[] = {" B", " KiB", " MiB", " GiB", " TiB"};
  unsigned power = 0;
  std::uint64_t scale = 1;
  while (power < 4 && bytes / scale >= 1024) {
    scale *= 1024;
    power++;
  }
  const std::uint64_t thousandths = bytes / scale * 1000 + bytes % scale * 1000 / scale;
  const bool whole = bytes % scale == 0 || thousandths >= 100'000;
  return fixed(thousandths, whole ? 0 : 1).put(kSuffix[power]);
}

void Text::write_to(int fd) const {
  const int saved_errno = errno;
  std::size_t done = 0;
  while (done < length_) {
    const ssize_t n = ::write(fd, buffer_ + done, length_ - done);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) break;
    done += static_cast<std::size_t>(n);
  }
  errno = saved_errno;
}

void fatal(const Text& message) { fatal(message.view()); }

void fatal(std::string_view message) {
  Text().put("ashlar: ").put(message).put('\n').write_to(STDERR_FILENO);
  std::abort();
}

void warn(const Text& message) {
  Text().put("ashlar: warning: ").put(message.view()).put('\n').write_to(STDERR_FILENO);
}

void refuse(const char* caller, const void* what, std::string_view why) {
  fatal(Text().put(caller).put("(): ").hex(reinterpret_cast<std::uintptr_t>(what)).put(why));
}

void assertion_failed(const char* expression, const char* file, int line) {
  fatal(Text()
            .put("assertion failed: ")
            .put(expression)
            .put(" at ")
            .put(file)
            .put(':')
            .decimal(static_cast<std::uint64_t>(line)));
}

}  // namespace ashlar
