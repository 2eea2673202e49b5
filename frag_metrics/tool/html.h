// SPDX-License-Identifier: MIT
// html: a report as one page that needs nothing else.
//
// What:    page.html with the report, the heat-map, a recording and call sites put in as JSON.
#pragma once

#include <span>
#include <string>

#include "../report.h"
#include "../samples.h"

namespace ashlar::frag {

// The page for a snapshot, its report, what was recorded and the call sites (both may be empty).
std::string html_page(const Snapshot& snapshot, const Report& report,
                      std::span<const Moment> recording, std::span<const Site> sites);

}  // namespace ashlar::frag
