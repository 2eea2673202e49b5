// SPDX-License-Identifier: MIT
#include "options.h"

#include <cstdlib>

#include "unit.h"

// A program's own settings.
extern "C" {
const char* ashlar_conf = nullptr;
}

namespace ashlar::test {

namespace {

// Parses into `parsed` and returns the warnings.
Options parsed;
std::string parse(std::string_view text) {
  parsed = Options{};
  return stderr_of([&] { parsed.parse(text); });
}

}  // namespace

TEST_SUITE_BEGIN("options");

TEST_CASE("settings are read in order and the last one wins") {
  CHECK(parse("purge_ms:5,magazine_kib:64,purge_ms:500,exit_report:text").empty());
  CHECK(parsed.purge_ms == 500);
  CHECK(parsed.magazine_kib == 64);
  CHECK(parsed.exit_report == 1);
}

TEST_CASE("nothing, and nothing between commas, changes nothing") {
  CHECK(parse("").empty());
  CHECK(parse(",,purge_ms:5,,").empty());
  CHECK(parsed.purge_ms == 5);
  CHECK(parsed.magazine_kib == Options{}.magazine_kib);
}

TEST_CASE("an unknown key is one warning and the rest is read") {
  CHECK(parse("purge_s:1,purge_ms:5") ==
        "ashlar: warning: unknown option in ASHLAR_CONF: 'purge_s:1'\n");
  CHECK(parsed.purge_ms == 5);
  CHECK(parse("PURGE_MS:1").find("unknown option") != std::string::npos);
  CHECK(parse(" purge_ms:1").find("unknown option") != std::string::npos);
}

TEST_CASE("a bad value is one warning and changes nothing") {
  for (const char* value :
       {"", ":", ":x", ":1x", ":x1", ":-", ":--1", ":+1", ": 1", ":1 ", ":-2", ":3600001",
        ":9999999999999", ":99999999999999999999999", ":1:2", ":0x10"}) {
    const std::string setting = std::string("purge_ms") + value;
    CAPTURE(setting);
    CHECK(parse(setting) == "ashlar: warning: bad value in ASHLAR_CONF: '" + setting + "'\n");
    CHECK(parsed.purge_ms == Options{}.purge_ms);
  }
  for (const char* value : {"", ":", ":tex", ":texts", ":1", ":off|text", ":|", ":Text"}) {
    const std::string setting = std::string("exit_report") + value;
    CAPTURE(setting);
    CHECK(parse(setting) == "ashlar: warning: bad value in ASHLAR_CONF: '" + setting + "'\n");
    CHECK(parsed.exit_report == Options{}.exit_report);
  }
}

TEST_CASE("each number takes the ends of its range and nothing beyond") {
  for (std::size_t i = 0; i < kOptionCount; i++) {
    const OptionInfo& row = kOptionTable[i];
    if (!row.words.empty()) continue;
    CAPTURE(std::string(row.name));
    const auto set = [&](std::int64_t value) {
      return parse(std::string(row.name) + ":" + std::to_string(value));
    };
    CHECK(set(row.least).empty());
    CHECK(parsed.*row.field == row.least);
    CHECK(set(row.most).empty());
    CHECK(parsed.*row.field == row.most);
    CHECK(!set(row.least - 1).empty());
    CHECK(!set(row.most + 1).empty());
    CHECK(parsed.*row.field == Options{}.*row.field);
  }
}

TEST_CASE("each word of a choice stands for its position") {
  for (std::size_t i = 0; i < kOptionCount; i++) {
    const OptionInfo& row = kOptionTable[i];
    std::int64_t n = 0;
    for (; !option_word(row.words, n).empty(); n++) {
      CHECK(parse(std::string(row.name) + ":" + std::string(option_word(row.words, n))).empty());
      CHECK(parsed.*row.field == n);
    }
    CHECK((n >= 2) == !row.words.empty());
  }
}

TEST_CASE("a very long mistake is cut in the warning") {
  const std::string line = parse(std::string(10'000, 'x'));
  CHECK(line.size() < 120);
  CHECK(line.ends_with("x'\n"));
}

TEST_CASE("the table is sorted, its defaults lie in their ranges, and every row has help") {
  for (std::size_t i = 0; i < kOptionCount; i++) {
    const OptionInfo& row = kOptionTable[i];
    if (i > 0) CHECK(kOptionTable[i - 1].name < row.name);
    CHECK(!row.help.empty());
    CHECK(row.words.empty() != row.unit.empty());
    if (row.words.empty()) {
      CHECK(row.least <= Options{}.*row.field);
      CHECK(Options{}.*row.field <= row.most);
    } else {
      CHECK(!option_word(row.words, Options{}.*row.field).empty());
    }
  }
}

TEST_CASE("the environment wins over the program's own settings") {
  options = Options{};
  ashlar_conf = "purge_ms:1,magazine_kib:2";
  ::setenv("ASHLAR_CONF", "purge_ms:3", 1);
  read_options();
  CHECK(options.purge_ms == 3);
  CHECK(options.magazine_kib == 2);
  ::unsetenv("ASHLAR_CONF");
  ashlar_conf = nullptr;
  options = Options{};
  read_options();
  CHECK(options.purge_ms == Options{}.purge_ms);
}

TEST_SUITE_END();

}  // namespace ashlar::test
