// SPDX-License-Identifier: MIT
// html: a report as one page that needs nothing else.
//
// What:    page.html with the report, the heat-map and a recording put in as JSON.
#pragma once

#include <span>
#include <string>

#include "../report.h"

namespace ashlar::frag {

// The page for a snapshot, its report and what was recorded (may be empty).
std::string html_page(const Snapshot& snapshot, const Report& report,
                      std::span<const Moment> recording);

}  // namespace ashlar::frag
