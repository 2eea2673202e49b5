// SPDX-License-Identifier: MIT
// Which call sites hold the objects that keep sparse slabs.
#include <fmt/format.h>
#include <fstream>
#include <iterator>

#include "../capture.h"
#include "../stacks.h"
#include "../text.h"
#include "print.h"

namespace ashlar::frag {

namespace {

constexpr std::size_t kMostSites = 12;
constexpr std::size_t kMostFramesShown = 8;

struct Seen {
  Snapshot snapshot;
  Samples samples;
  std::vector<Site> sites;
};

Seen look(const std::string& name) {
  const std::unique_ptr<Target> target = open_target(name);
  const std::uint64_t root = find_arena(*target);
  Seen seen;
  seen.snapshot = capture(*target, root);
  seen.samples = capture_samples(*target, root, seen.snapshot);
  Stacks stacks(seen.snapshot, name);
  seen.sites = sites(seen.samples, stacks.unwind(seen.samples));
  return seen;
}

std::uint64_t whole(double bytes) { return static_cast<std::uint64_t>(bytes + 0.5); }

std::string frame_text(const Frame& frame) {
  return frame.function.empty() ? frame.place : fmt::format("{} ({})", frame.function, frame.place);
}

std::string sites_text(const Seen& seen, const View& view) {
  const Style style(view);
  double pinned = 0;
  for (const Site& site : seen.sites) pinned += site.pinned;
  const std::uint64_t mean = whole(seen.samples.effective_mean_bytes());
  std::string out = fmt::format(
      "{}{}{} (process {}): {} samples of live objects, one in {} allocated; {} lie free beside "
      "them\n",
      style.bold, seen.snapshot.program, style.off, seen.snapshot.pid, seen.samples.live.size(),
      size_text(mean), size_text(whole(pinned)));
  if (mean > seen.samples.mean_bytes) {
    out += fmt::format("one in {} would have taken too long: see sample_percent\n",
                       size_text(seen.samples.mean_bytes));
  }
  if (seen.samples.lost != 0) {
    out +=
        fmt::format("{} samples were lost for want of room: raise sample_kib\n", seen.samples.lost);
  }
  out += fmt::format("\n{}      pins            objects        bytes  samples{}\n", style.dim,
                     style.off);
  for (std::size_t i = 0; i < std::min(seen.sites.size(), kMostSites); i++) {
    const Site& site = seen.sites[i];
    out += fmt::format("{:>10} {:>6} {:>10} {:>12} {:>8}\n", size_text(whole(site.pinned)),
                       percent_text(whole(site.pinned), whole(pinned)), whole(site.objects),
                       size_text(whole(site.bytes)), site.samples);
    for (std::size_t f = 0; f < std::min(site.stack.size(), kMostFramesShown); f++) {
      out += fmt::format("             {}{}{}\n", f == 0 ? "" : style.dim,
                         frame_text(site.stack[f]), f == 0 ? "" : style.off);
    }
    if (site.stack.size() > kMostFramesShown) {
      out += fmt::format("             {}… {} more{}\n", style.dim,
                         site.stack.size() - kMostFramesShown, style.off);
    }
  }
  if (seen.sites.size() > kMostSites) {
    out += fmt::format("{}and {} more sites{}\n", style.dim, seen.sites.size() - kMostSites,
                       style.off);
  }
  return out;
}

nlohmann::json sites_json(const Seen& seen) {
  return {{"schema", kSchema},
          {"mean_bytes", seen.samples.mean_bytes},
          {"effective_mean_bytes", whole(seen.samples.effective_mean_bytes())},
          {"taken", seen.samples.taken},
          {"lost", seen.samples.lost},
          {"sites", to_json(std::span(seen.sites))}};
}

std::string maps_text(const Snapshot& snapshot) {
  std::ifstream maps(fmt::format("/proc/{}/maps", snapshot.pid));
  return snapshot.source == "process" ? std::string(std::istreambuf_iterator<char>(maps), {}) : "";
}

}  // namespace

std::vector<Site> sites_of(Target& target, const std::string& name, const Snapshot& snapshot) {
  try {
    const Samples samples = capture_samples(target, find_arena(target), snapshot);
    return sites(samples, Stacks(snapshot, name).unwind(samples));
  } catch (const Error&) {
    return {};  // most targets take no samples
  }
}

int run_sites(const std::string& name, SitesForm form, const View& view) {
  const Seen seen = look(name);
  switch (form) {
    case SitesForm::text: fmt::print("{}", sites_text(seen, view)); break;
    case SitesForm::json: fmt::print("{}\n", json_text(sites_json(seen), 2)); break;
    case SitesForm::folded: fmt::print("{}", folded_text(seen.sites, true)); break;
    case SitesForm::pprof:
      fmt::print("{}", pprof_text(seen.sites, maps_text(seen.snapshot)));
      break;
  }
  return kFine;
}

}  // namespace ashlar::frag
