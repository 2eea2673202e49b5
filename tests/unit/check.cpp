// SPDX-License-Identifier: MIT
#include "check.h"

#include <cerrno>

#include "unit.h"

namespace ashlar::test {

namespace {
std::string size(std::uint64_t bytes) { return std::string(Text().size(bytes).view()); }
std::string fixed(std::uint64_t thousandths, unsigned digits) {
  return std::string(Text().fixed(thousandths, digits).view());
}
}  // namespace

TEST_SUITE_BEGIN("check");

TEST_CASE("numbers read as printf would write them") {
  for (std::uint64_t n : {std::uint64_t{0}, std::uint64_t{9}, std::uint64_t{10},
                          std::uint64_t{4096}, std::uint64_t{0xdead'beef}, ~std::uint64_t{0}}) {
    char text[64];
    std::snprintf(text, sizeof text, "%llu 0x%llx", static_cast<unsigned long long>(n),
                  static_cast<unsigned long long>(n));
    CHECK(Text().decimal(n).put(' ').hex(n).view() == std::string_view(text));
  }
}

TEST_CASE("thousandths are rounded to the digits asked for") {
  CHECK(fixed(1234, 2) == "1.23");
  CHECK(fixed(1235, 2) == "1.24");
  CHECK(fixed(1234, 3) == "1.234");
  CHECK(fixed(999, 0) == "1");
  CHECK(fixed(499, 0) == "0");
  CHECK(fixed(1999, 2) == "2.00");
  CHECK(fixed(7, 2) == "0.01");
}

TEST_CASE("sizes are readable") {
  CHECK(size(0) == "0 B");
  CHECK(size(512) == "512 B");
  CHECK(size(1023) == "1023 B");
  CHECK(size(64 * kKiB) == "64 KiB");
  CHECK(size(kMiB + kMiB / 2) == "1.5 MiB");
  CHECK(size(150 * kMiB + kMiB / 2) == "151 MiB");
  CHECK(size(3 * kGiB) == "3 GiB");
  CHECK(size(~std::uint64_t{0}).ends_with(" TiB"));
}

TEST_CASE("a column is right-aligned and never cuts") {
  CHECK(Text().column("ab", 5).view() == "   ab");
  CHECK(Text().column("abcdef", 5).view() == "abcdef");
}

TEST_CASE("what does not fit into a text is cut") {
  Text text;
  for (int i = 0; i < 1000; i++) text.put("0123456789");
  CHECK(text.view().size() == 480);
  CHECK(text.view().ends_with("789"));
  text.clear();
  CHECK(text.put('x').view() == "x");
}

TEST_CASE("writing keeps errno, even where it fails") {
  errno = 77;
  Text().put("lost").write_to(-1);
  CHECK(errno == 77);
  CHECK(text_of([](int fd) { Text().put("kept").write_to(fd); }) == "kept");
}

TEST_CASE("a warning is one line and the program goes on") {
  CHECK(stderr_of([] { warn(Text().put("mind the gap")); }) == "ashlar: warning: mind the gap\n");
}

TEST_CASE("a fatal error is one line and SIGABRT") {
  const Death death = death_of([] { fatal("the end"); });
  CHECK(death.signal == SIGABRT);
  CHECK(death.last_words == "ashlar: the end\n");
}

TEST_CASE("a failed assertion says what and where") {
  const Death death = death_of([] { assertion_failed("a < b", "file.cpp", 7); });
  CHECK(death.signal == SIGABRT);
  CHECK(death.last_words == "ashlar: assertion failed: a < b at file.cpp:7\n");
}

TEST_SUITE_END();

}  // namespace ashlar::test
