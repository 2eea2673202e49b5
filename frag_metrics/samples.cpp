// SPDX-License-Identifier: MIT
#include "samples.h"

#include <algorithm>
#include <cmath>
#include <fmt/format.h>
#include <map>

namespace ashlar::frag {

double Sample::weight() const {
  const double p = -std::expm1(-static_cast<double>(bytes) / static_cast<double>(mean_bytes));
  return p > 0 ? 1 / p : 0;
}

double Samples::effective_mean_bytes() const {
  if (live.empty()) return static_cast<double>(mean_bytes);
  double sum = 0;
  for (const Sample& sample : live) sum += static_cast<double>(sample.mean_bytes);
  return sum / static_cast<double>(live.size());
}

// Horvitz and Thompson's estimator: whether one object is sampled does not depend on whether those
// before it were, but for the mean, and that is known by then.
Estimate rounding(const Samples& samples) {
  Estimate estimate;
  double variance = 0;
  for (const Sample& sample : samples.live) {
    const double weight = sample.weight();
    const auto surplus =
        static_cast<double>(sample.bytes - std::min(sample.requested, sample.bytes));
    estimate.value += weight * surplus;
    variance += weight * (weight - 1) * surplus * surplus;
  }
  estimate.deviation = std::sqrt(variance);
  return estimate;
}

std::vector<Site> sites(const Samples& samples, const std::vector<std::vector<Frame>>& stacks) {
  std::map<std::vector<std::uint64_t>, Site> by_stack;
  for (std::size_t i = 0; i < samples.live.size(); i++) {
    const Sample& sample = samples.live[i];
    std::vector<std::uint64_t> key;
    for (const Frame& frame : stacks[i]) key.push_back(frame.address);
    Site& site = by_stack[std::move(key)];
    if (site.samples == 0) site.stack = stacks[i];
    const double weight = sample.weight();
    site.samples++;
    site.objects += weight;
    site.bytes += weight * static_cast<double>(sample.bytes);
    site.pinned += weight * sample.pinned;
  }
  std::vector<Site> all;
  for (auto& [key, site] : by_stack) all.push_back(std::move(site));
  std::ranges::stable_sort(all, [](const Site& a, const Site& b) {
    return a.pinned != b.pinned ? a.pinned > b.pinned : a.bytes > b.bytes;
  });
  return all;
}

std::string folded_text(const std::vector<Site>& sites, bool pinned) {
  std::map<std::string, double> lines;
  for (const Site& site : sites) {
    std::string line;
    for (auto frame = site.stack.rbegin(); frame != site.stack.rend(); ++frame) {
      std::string name = frame->function.empty() ? frame->place : frame->function;
      std::ranges::replace(name, ';', ':');
      line += (line.empty() ? "" : ";") + name;
    }
    lines[line.empty() ? "unknown" : line] += pinned ? site.pinned : site.bytes;
  }
  std::string text;
  for (const auto& [line, bytes] : lines) text += fmt::format("{} {:.0f}\n", line, bytes);
  return text;
}

std::string pprof_text(const std::vector<Site>& sites, const std::string& maps) {
  // pprof knows one mean for all. It is told what samples stand for, and that each byte was
  // sampled.
  const auto counts = [](double objects, double bytes) {
    return fmt::format("{0:.0f}: {1:.0f} [{0:.0f}: {1:.0f}]", objects, bytes);
  };
  double objects = 0;
  double bytes = 0;
  for (const Site& site : sites) {
    objects += site.objects;
    bytes += site.bytes;
  }
  std::string text = fmt::format("heap profile: {} @ heap_v2/1\n", counts(objects, bytes));
  for (const Site& site : sites) {
    text += counts(site.objects, site.bytes) + " @";
    for (const Frame& frame : site.stack) text += fmt::format(" {:#x}", frame.address);
    text += '\n';
  }
  return text + "\nMAPPED_LIBRARIES:\n" + maps;
}

}  // namespace ashlar::frag
