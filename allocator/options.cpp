// SPDX-License-Identifier: MIT
#include "options.h"

#include <cstdlib>

#include "check.h"

// A program may define this to bring its own settings; the environment overrides them.
extern "C" {
extern const char* ashlar_conf __attribute__((weak));
}

namespace ashlar {

constinit Options options;

constinit const OptionInfo kOptionTable[] = {
#define ASHLAR_OPTION(name, fallback, least, most, unit, help) \
  {#name, &Options::name, least, most, unit, "", help},
#define ASHLAR_CHOICE(name, fallback, words, help) {#name, &Options::name, 0, 0, "", words, help},
#include "options.def"
#undef ASHLAR_OPTION
#undef ASHLAR_CHOICE
};
constinit const std::size_t kOptionCount = sizeof kOptionTable / sizeof kOptionTable[0];

namespace {

// Removes and returns what stands before the first `separator`, or everything.
std::string_view cut(std::string_view& rest, char separator) {
  std::size_t length = 0;
  while (length < rest.size() && rest[length] != separator) length++;
  const std::string_view part(rest.data(), length);
  rest.remove_prefix(length < rest.size() ? length + 1 : length);
  return part;
}

bool parse_number(std::string_view text, std::int64_t least, std::int64_t most,
                  std::int64_t& value) {
  const bool negative = text.starts_with('-');
  if (negative) text.remove_prefix(1);
  if (text.empty() || text.size() > 12) return false;
  std::int64_t n = 0;
  for (char digit : text) {
    if (digit < '0' || digit > '9') return false;
    n = n * 10 + (digit - '0');
  }
  if (negative) n = -n;
  if (n < least || n > most) return false;
  value = n;
  return true;
}

bool parse_word(std::string_view text, std::string_view words, std::int64_t& value) {
  for (std::int64_t i = 0; !words.empty(); i++) {
    if (cut(words, '|') == text) {
      value = i;
      return true;
    }
  }
  return false;
}

void warn_about(std::string_view what, std::string_view text) {
  constexpr std::size_t kShown = 60;  // of what may be a very long mistake
  if (text.size() > kShown) text.remove_suffix(text.size() - kShown);
  warn(Text().put(what).put(" in ASHLAR_CONF: '").put(text).put("'"));
}

}  // namespace

std::string_view option_word(std::string_view words, std::int64_t n) {
  while (n-- > 0) cut(words, '|');
  return cut(words, '|');
}

void Options::parse(std::string_view text) {
  while (!text.empty()) {
    const std::string_view setting = cut(text, ',');
    std::string_view value = setting;
    const std::string_view key = cut(value, ':');
    if (setting.empty()) continue;
    const OptionInfo* found = nullptr;
    for (const OptionInfo& row : kOptionTable) {
      if (row.name == key) found = &row;
    }
    if (found == nullptr) {
      warn_about("unknown option", setting);
    } else if (std::int64_t& field = this->*found->field;
               !(found->words.empty() ? parse_number(value, found->least, found->most, field)
                                      : parse_word(value, found->words, field))) {
      warn_about("bad value", setting);
    }
  }
}

void read_options() {
  if (&ashlar_conf != nullptr && ashlar_conf != nullptr) options.parse(ashlar_conf);
  // Not for programs that run with more rights than their user.
  if (const char* text = ::secure_getenv("ASHLAR_CONF")) options.parse(text);
}

}  // namespace ashlar
