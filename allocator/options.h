// SPDX-License-Identifier: MIT
// L1 · options: the settings of a process, from one table (options.def).
//
// What:    read once at start from the weak symbol `ashlar_conf` and then from the environment
//          variable ASHLAR_CONF, later ones win: "purge_ms:500,exit_report:text". An unknown key
//          or a bad value is one warning on stderr and changes nothing.
// Threads: `options` is written before main and constant afterwards.
#pragma once

#include <cstdint>
#include <string_view>

namespace ashlar {

struct Options {
#define ASHLAR_OPTION(name, fallback, least, most, unit, help) std::int64_t name = fallback;
#define ASHLAR_CHOICE(name, fallback, words, help) std::int64_t name = fallback;
#include "options.def"
#undef ASHLAR_OPTION
#undef ASHLAR_CHOICE

  // Reads "key:value,key:value…". Warns on stderr and goes on at what it cannot read.
  void parse(std::string_view text);
};

// One row of the table.
struct OptionInfo {
  std::string_view name;
  std::int64_t Options::*field;
  std::int64_t least;
  std::int64_t most;
  std::string_view unit;   // empty for a choice
  std::string_view words;  // "off|text", empty for a number
  std::string_view help;
};

// The rows in alphabetical order.
extern constinit const OptionInfo kOptionTable[];
extern constinit const std::size_t kOptionCount;
// The n-th word of "off|text"; empty when there are fewer.
std::string_view option_word(std::string_view words, std::int64_t n);

// Positions of the words of `background`.
enum : std::int64_t { kBackgroundAuto, kBackgroundAlways, kBackgroundNever };

// Positions of the words of `check`.
enum : std::int64_t { kCheckUsual, kCheckExact };

// Positions of the words of `thp`.
enum : std::int64_t { kHugePagesAuto, kHugePagesAlways, kHugePagesNever };

extern constinit Options options;

// Called once, from the library's constructor.
void read_options();

}  // namespace ashlar
