// SPDX-License-Identifier: MIT
// export: reports for other programs: Prometheus, spreadsheets.
//
// Threads: pure functions.
#pragma once

#include <span>
#include <string>

#include "report.h"

namespace ashlar::frag {

// The text format of Prometheus 0.0.4; one family after the other, labelled by pid and program.
std::string prometheus_text(std::span<const Report> reports);

// "pid,program,metric,slot_bytes,value" and a line for each number; slot_bytes is empty where the
// number is not one of a size class.
std::string csv_text(std::span<const Report> reports);

}  // namespace ashlar::frag
