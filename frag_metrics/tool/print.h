// SPDX-License-Identifier: MIT
// print: reports for a terminal.
#pragma once

#include <string>

#include "verbs.h"

namespace ashlar::frag {

// One screen: the waterfall, the classes with the largest gaps, the verdict.
std::string report_text(const Report& report, const View& view);
// The same for a terminal of that size: no verdict, and as many classes as there is room for below
// the lines of `history`.
std::string screen_text(const Report& report, const View& view, const std::string& history);
// What fits of a line.
std::string cut(const std::string& line, int columns);
// The findings, or a sentence that there are none.
std::string findings_text(const Report& report, const View& view);
// Every page, as many to a character as it takes to fit.
std::string map_text(const Snapshot& snapshot, const View& view);

std::string diff_text(const Report& a, const Report& b, const View& view);
nlohmann::json diff_json(const Report& a, const Report& b);

// A bar of at most `cells` characters that is full where the part is 1.
std::string bar(double part, int cells);

// Styles; empty when the view has no color.
struct Style {
  const char* bold = "";
  const char* dim = "";
  const char* red = "";
  const char* green = "";
  const char* off = "";
  explicit Style(const View& view);
};

}  // namespace ashlar::frag
