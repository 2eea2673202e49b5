// SPDX-License-Identifier: MIT
// ashlar: what a process does with its memory, seen from outside.
#include <CLI/CLI.hpp>
#include <charconv>
#include <cstdlib>
#include <fcntl.h>
#include <fmt/format.h>
#include <fstream>
#include <sys/ioctl.h>
#include <unistd.h>

#include "../capture.h"
#include "print.h"
#include "verbs.h"

namespace ashlar::frag {

std::unique_ptr<Target> open_target(const std::string& name) {
  std::int64_t pid = 0;
  const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), pid);
  const bool is_number = error == std::errc{} && end == name.data() + name.size();
  if (is_number && pid > 0 && pid <= INT32_MAX) return open_process(pid);
  if (name.starts_with("shm:")) throw Error(name + ": arenas in shared memory cannot be read yet");
  return open_core(name);
}

Report load_report(const std::string& name) {
  std::ifstream file(name);
  if (file && file.peek() == '{') {
    const auto json = nlohmann::json::parse(file, nullptr, false);
    if (json.is_discarded()) throw Error(name + ": not JSON");
    return report_from_json(json);
  }
  const std::unique_ptr<Target> target = open_target(name);
  return make_report(capture(*target));
}

int run_report(const std::string& name, const std::string& html, const View& view) {
  static_cast<void>(html);
  const Report report = load_report(name);
  if (view.json) {
    fmt::print("{}\n", to_json(report).dump(2));
  } else {
    fmt::print("{}", report_text(report, view));
  }
  return report.findings.empty() ? kFine : kFindings;
}

int run_doctor(const std::string& name, const View& view) {
  const Report report = load_report(name);
  if (view.json) {
    const nlohmann::json all = to_json(report);
    fmt::print("{}\n", nlohmann::json{{"schema", kSchema}, {"findings", all["findings"]}}.dump(2));
  } else {
    fmt::print("{}", findings_text(report, view));
  }
  return report.findings.empty() ? kFine : kFindings;
}

namespace {

View view_of_terminal() {
  View view;
  winsize size{};
  const bool terminal = ::isatty(STDOUT_FILENO) != 0;
  if (terminal && ::ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col != 0) {
    view.columns = size.ws_col;
  }
  const char* const no_color = std::getenv("NO_COLOR");
  view.color = terminal && (no_color == nullptr || *no_color == '\0');
  return view;
}

int run(int argc, char** argv) {
  CLI::App app("What a process does with its memory, seen from outside.", "ashlar");
  app.set_version_flag("--version", "ashlar " ASHLAR_VERSION);
  app.require_subcommand(1);
  app.footer(
      "A target is a process id or a core file. Exit code: 0 all is well, 1 there are findings, 2 "
      "error.");
  View view = view_of_terminal();
  std::string target;
  std::string html;
  int code = kFine;
  const auto verb = [&](const char* name, const char* help) {
    CLI::App* const sub = app.add_subcommand(name, help);
    sub->add_flag("--json", view.json, "Print JSON");
    return sub;
  };

  CLI::App* const report = verb("report", "Where the bytes are, on one screen");
  report->add_option("TARGET", target, "Process id, core file, or kept JSON report")->required();
  report->callback([&] { code = run_report(target, html, view); });

  CLI::App* const doctor = verb("doctor", "What is wrong, why, and what to do");
  doctor->add_option("TARGET", target, "Process id, core file, or kept JSON report")->required();
  doctor->callback([&] { code = run_doctor(target, view); });

  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    return app.exit(e) == 0 ? kFine : kFailed;
  }
  return code;
}

}  // namespace

}  // namespace ashlar::frag

int main(int argc, char** argv) {
  try {
    return ashlar::frag::run(argc, argv);
  } catch (const std::exception& e) {
    fmt::print(stderr, "ashlar: {}\n", e.what());
    return ashlar::frag::kFailed;
  }
}
