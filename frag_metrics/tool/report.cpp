// SPDX-License-Identifier: MIT
// The verbs that show one report: report, doctor, export, diff.
#include <fmt/format.h>

#include "../capture.h"
#include "../export.h"
#include "../text.h"
#include "html.h"
#include "print.h"
#include "verbs.h"

namespace ashlar::frag {

namespace {

int code_of(const Report& report) { return report.findings.empty() ? kFine : kFindings; }

}  // namespace

int run_report(const std::string& name, const std::string& html, const View& view) {
  Report report;
  if (html.empty()) {
    report = load_report(name);
  } else {
    const std::unique_ptr<Target> target = open_target(name);
    const Snapshot snapshot = capture(*target);
    report = make_report(snapshot);
    write_file(html, html_page(snapshot, report, {}, sites_of(*target, name, snapshot)));
  }
  if (view.json) {
    fmt::print("{}\n", json_text(to_json(report), 2));
  } else {
    fmt::print("{}", report_text(report, view));
  }
  return code_of(report);
}

int run_doctor(const std::string& name, const View& view) {
  const Report report = load_report(name);
  if (view.json) {
    const nlohmann::json all = to_json(report);
    fmt::print("{}\n", json_text({{"schema", kSchema}, {"findings", all["findings"]}}, 2));
  } else {
    fmt::print("{}", findings_text(report, view));
  }
  return code_of(report);
}

int run_export(const std::vector<std::string>& targets, Format format) {
  std::vector<Report> reports;
  for (const std::string& name : targets) reports.push_back(load_report(name));
  switch (format) {
    case Format::prometheus: fmt::print("{}", prometheus_text(reports)); break;
    case Format::csv: fmt::print("{}", csv_text(reports)); break;
    case Format::json: {
      nlohmann::json all = nlohmann::json::array();
      for (const Report& report : reports) all.push_back(to_json(report));
      fmt::print("{}\n", json_text({{"schema", kSchema}, {"reports", std::move(all)}}, 2));
      break;
    }
  }
  return kFine;
}

int run_diff(const std::string& before, const std::string& after, const View& view) {
  const Report a = load_report(before);
  const Report b = load_report(after);
  if (view.json) {
    fmt::print("{}\n", json_text(diff_json(a, b), 2));
  } else {
    fmt::print("{}", diff_text(a, b, view));
  }
  return kFine;
}

}  // namespace ashlar::frag
