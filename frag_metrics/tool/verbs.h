// SPDX-License-Identifier: MIT
// verbs: the commands of the tool, a function each.
//
// What:    each takes what the command line says and returns the exit code: 0 all is well, 1 there
//          are findings, 2 it could not be done (by exception: Error says why).
#pragma once

#include <string>
#include <vector>

#include "../report.h"
#include "../target.h"

namespace ashlar::frag {

enum ExitCode : int { kFine = 0, kFindings = 1, kFailed = 2 };

struct View {
  bool json = false;
  bool color = false;
  int columns = 80;
};

// "1234", or the path of a core file.
std::unique_ptr<Target> open_target(const std::string& name);
// The same, or a report that was kept as JSON.
Report load_report(const std::string& name);

int run_report(const std::string& target, const std::string& html, const View& view);
int run_doctor(const std::string& target, const View& view);

}  // namespace ashlar::frag
