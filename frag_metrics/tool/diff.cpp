// SPDX-License-Identifier: MIT
// What changed between two reports.
#include <algorithm>
#include <fmt/format.h>
#include <map>

#include "../text.h"
#include "print.h"

namespace ashlar::frag {

namespace {

constexpr std::size_t kMostClasses = 12;

std::int64_t change(std::uint64_t from, std::uint64_t to) {
  return static_cast<std::int64_t>(to - from);
}

struct ClassChange {
  std::int64_t objects = 0;
  std::int64_t slabs = 0;
  std::int64_t free = 0;
};

std::map<std::uint32_t, ClassChange> class_changes(const Report& a, const Report& b) {
  std::map<std::uint32_t, ClassChange> changes;
  const auto add = [&](const Report& report, std::int64_t sign) {
    for (const ClassMetrics& c : report.classes) {
      ClassChange& of_class = changes[c.slot_bytes];
      of_class.objects += sign * static_cast<std::int64_t>(c.live + c.in_mosaics);
      of_class.slabs += sign * static_cast<std::int64_t>(c.slabs);
      of_class.free += sign * static_cast<std::int64_t>(c.free);
    }
  };
  add(a, -1);
  add(b, +1);
  std::erase_if(changes, [](const auto& entry) {
    return entry.second.objects == 0 && entry.second.slabs == 0 && entry.second.free == 0;
  });
  return changes;
}

}  // namespace

std::string diff_text(const Report& a, const Report& b, const View& view) {
  const Style style(view);
  std::string out = fmt::format("{}  {:<12}{:>12}{:>12}{:>13}{}\n", style.dim, "", "before",
                                "after", "change", style.off);
  const auto row = [&](const char* name, std::uint64_t from, std::uint64_t to) {
    out += fmt::format("  {:<12}{:>12}{:>12}{:>13}\n", name, size_text(from), size_text(to),
                       change_text(change(from, to)));
  };
  row("allocated", a.heap.allocated, b.heap.allocated);
  row("magazines", a.heap.magazines, b.heap.magazines);
  row("pending", a.heap.pending, b.heap.pending);
  row("slab gaps", a.heap.gaps, b.heap.gaps);
  row("active", a.heap.active, b.heap.active);
  row("untouched", a.heap.untouched, b.heap.untouched);
  row("dirty", a.heap.dirty, b.heap.dirty);
  row("metadata", a.heap.metadata, b.heap.metadata);
  row("resident", a.heap.resident, b.heap.resident);
  row("mapped", a.heap.mapped, b.heap.mapped);

  const auto changes = class_changes(a, b);
  std::vector<std::pair<std::uint32_t, ClassChange>> sorted(changes.begin(), changes.end());
  std::ranges::stable_sort(sorted, std::ranges::greater(),
                           [](const auto& entry) { return std::abs(entry.second.free); });
  if (!sorted.empty()) {
    out += fmt::format("\n{}      slot     objects       slabs         free{}\n", style.dim,
                       style.off);
  }
  for (std::size_t i = 0; i < std::min(sorted.size(), kMostClasses); i++) {
    const auto& [slot_bytes, c] = sorted[i];
    out += fmt::format("{:>8} B{:>+12}{:>+12}{:>13}\n", slot_bytes, c.objects, c.slabs,
                       change_text(c.free));
  }
  if (sorted.size() > kMostClasses) {
    out += fmt::format("{}    and {} more classes{}\n", style.dim, sorted.size() - kMostClasses,
                       style.off);
  }
  return out;
}

nlohmann::json diff_json(const Report& a, const Report& b) {
  nlohmann::json heap;
  const nlohmann::json from = to_json(a.heap);
  const nlohmann::json to = to_json(b.heap);
  for (const auto& [name, value] : from.items()) {
    heap[name] = change(value.get<std::uint64_t>(), to[name].get<std::uint64_t>());
  }
  nlohmann::json of_classes = nlohmann::json::array();
  for (const auto& [slot_bytes, c] : class_changes(a, b)) {
    of_classes.push_back(
        {{"slot_bytes", slot_bytes}, {"objects", c.objects}, {"slabs", c.slabs}, {"free", c.free}});
  }
  return {{"schema", kSchema}, {"heap", std::move(heap)}, {"classes", std::move(of_classes)}};
}

}  // namespace ashlar::frag
