// SPDX-License-Identifier: MIT
// print: a report for a terminal.
#pragma once

#include <span>
#include <string>

#include "verbs.h"

namespace ashlar::frag {

// One screen: the waterfall, the classes with the largest gaps, the verdict.
std::string report_text(const Report& report, const View& view);
// The findings, or a sentence that there are none.
std::string findings_text(const Report& report, const View& view);

// A bar of `cells` characters that is full where the part is the whole.
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
