// SPDX-License-Identifier: MIT
#include "print.h"

#include <algorithm>
#include <cmath>
#include <fmt/format.h>

#include "../text.h"

namespace ashlar::frag {

namespace {

constexpr int kBarCells = 24;
constexpr std::size_t kMostClasses = 10;

std::string wrapped(const std::string& text, int indent, int columns) {
  std::string out;
  std::string line(static_cast<std::size_t>(indent), ' ');
  std::size_t at = 0;
  bool empty = true;
  while (at < text.size()) {
    std::size_t end = text.find(' ', at);
    if (end == std::string::npos) end = text.size();
    const std::string word = text.substr(at, end - at);
    if (!empty && line.size() + 1 + word.size() > static_cast<std::size_t>(columns)) {
      out += line + '\n';
      line.assign(static_cast<std::size_t>(indent), ' ');
      empty = true;
    }
    if (!empty) line += ' ';
    line += word;
    empty = false;
    at = end + 1;
  }
  return out + line + '\n';
}

void put_rung(std::string& out, const Style& style, const char* name, std::uint64_t bytes,
              std::uint64_t of, const char* what, bool total = false) {
  out += fmt::format("  {}{:<11}{}{:>10}{:>7}  {:<{}}  {}{}{}\n", total ? style.bold : "", name,
                     style.off, size_text(bytes), percent_text(bytes, of),
                     bar(ratio(bytes, of), kBarCells), kBarCells, style.dim, what, style.off);
}

// The allocator does not keep it: by samples, or what is certain.
void put_requested(std::string& out, const Report& r, const Style& style) {
  if (!r.requested) return;
  if (r.requested->estimate) {
    const std::string what =
        fmt::format("by samples, ±{}", size_text(2 * r.requested->deviation.value_or(0)));
    return put_rung(out, style, "requested", *r.requested->estimate, r.heap.mapped, what.c_str());
  }
  put_rung(out, style, "requested ≥", r.requested->least, r.heap.mapped, "before rounding up");
}

void put_waterfall(std::string& out, const Report& r, const Style& style) {
  const Waterfall& w = r.heap;
  const auto rung = [&](const char* name, std::uint64_t bytes, const char* what,
                        bool total = false) {
    put_rung(out, style, name, bytes, w.mapped, what, total);
  };
  put_requested(out, r, style);
  rung("allocated", w.allocated, "held by the program");
  rung("magazines", w.magazines, "kept at hand by threads");
  rung("pending", w.pending, "freed by other threads");
  rung("slab gaps", w.gaps, "free slots, tails of slabs");
  rung("active", w.active, "the sum of these four", true);
  rung("untouched", w.untouched, "of these, not in memory");
  rung("dirty", w.dirty, "free pages in memory");
  rung("metadata", w.metadata, "the allocator's own data");
  rung("resident", w.resident, "active-untouched+dirty+metadata", true);
  rung("mapped", w.mapped, "active and free pages", true);
  if (w.swapped != 0) rung("swapped", w.swapped, "out of memory, in swap");
}

void put_ratios(std::string& out, const Report& r) {
  const Waterfall& w = r.heap;
  out += fmt::format("\n  resident / allocated {:.2f}   active / allocated {:.2f}",
                     ratio(w.resident, w.allocated), ratio(w.active, w.allocated));
  if (r.process) {
    out += fmt::format("   process: RSS {}, PSS {}", size_text(r.process->rss),
                       size_text(r.process->pss));
  }
  out += fmt::format(
      "\n  large objects {} with {}   lanes {}, {} in use   empty pages in slabs {}\n",
      r.large_blocks, size_text(r.large_bytes), r.lanes, r.lanes_leased, size_text(r.empty.empty));
  if (r.mosaics.mosaics != 0) {
    out += fmt::format("  mosaics {} with {} objects, {} free in them\n", r.mosaics.mosaics,
                       r.mosaics.objects, size_text(r.mosaics.free));
  }
  out += fmt::format("  free runs: longest {}   unusable for 64 KiB {:.2f}, for 2 MiB {:.2f}",
                     size_text(r.free_runs.longest * kPageBytes), r.unusable.at(1).index,
                     r.unusable.at(2).index);
  if (r.huge)
    out += fmt::format("   huge pages {}", percent_text(r.huge->covered, r.huge->resident));
  out += '\n';
}

void put_holders(std::string& out, const Report& r, const Style& style) {
  if (!r.holders || r.holders->empty()) return;
  out +=
      fmt::format("\n{}   process  name             lanes        holds{}\n", style.dim, style.off);
  for (const Holder& h : *r.holders) {
    out += fmt::format("{:>10}  {:<15}{:>7}{:>13}{}{}\n", h.pid, h.name, h.lanes, size_text(h.held),
                       h.scoped ? "  scoped" : "", h.alive ? "" : "  dead, not recovered");
  }
}

void put_classes(std::string& out, const Report& r, const Style& style, std::size_t most_classes) {
  std::vector<ClassMetrics> sorted = r.classes;
  std::ranges::stable_sort(sorted, std::ranges::greater(), &ClassMetrics::free);
  if (sorted.empty()) return;
  const std::uint64_t most = std::max<std::uint64_t>(sorted[0].free, 1);
  out += fmt::format(
      "\n{}      slot   slabs    objects    used   allocated        free  slabs by occupancy, 0 to "
      "100 %{}\n",
      style.dim, style.off);
  for (std::size_t i = 0; i < std::min(sorted.size(), most_classes); i++) {
    const ClassMetrics& c = sorted[i];
    if (c.free * 100 < most) break;
    std::string deciles;
    const std::uint64_t highest = *std::ranges::max_element(c.deciles);
    for (const std::uint64_t n : c.deciles) {
      static constexpr const char* kHeights[] = {"·", "▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"};
      deciles += kHeights[n == 0 ? 0 : std::max<std::uint64_t>(n * 8 / highest, 1)];
    }
    out += fmt::format("{:>8} B{:>8}{:>11}{:>8}{:>12}{:>12}  {}  {}\n", c.slot_bytes, c.slabs,
                       c.live, percent_text(c.live, c.slots),
                       size_text((c.live + c.in_mosaics) * c.slot_bytes), size_text(c.free),
                       deciles, bar(ratio(c.free, most), 16));
  }
  if (sorted.size() > most_classes) {
    out += fmt::format("{}    and {} more classes{}\n", style.dim, sorted.size() - most_classes,
                       style.off);
  }
}

}  // namespace

Style::Style(const View& view) {
  if (!view.color) return;
  bold = "\x1b[1m";
  dim = "\x1b[2m";
  red = "\x1b[31m";
  green = "\x1b[32m";
  off = "\x1b[0m";
}

std::string bar(double part, int cells) {
  static constexpr const char* kEighths[] = {"", "▏", "▎", "▍", "▌", "▋", "▊", "▉"};
  const int eighths = static_cast<int>(std::lround(std::clamp(part, 0.0, 1.0) * cells * 8));
  std::string out;
  for (int i = 0; i < eighths / 8; i++) out += "█";
  return out + kEighths[eighths % 8];
}

std::string numbers_text(const Report& r, const View& view, std::size_t most_classes) {
  const Style style(view);
  std::string out = fmt::format(
      "{}{}{} ({}), Ashlar {}\n\n", style.bold, r.program, style.off,
      r.holders ? "an arena in shared memory" : fmt::format("{} {}", r.source, r.pid), r.release);
  put_waterfall(out, r, style);
  put_ratios(out, r);
  put_holders(out, r, style);
  put_classes(out, r, style, most_classes);
  return out;
}

std::string report_text(const Report& r, const View& view) {
  const Style style(view);
  std::string out = numbers_text(r, view, kMostClasses) + '\n' + findings_text(r, view);
  if (r.slabs_reread != 0 || r.dropped != 0) {
    out += fmt::format(
        "{}{} slabs changed while being read and were read again; {} records made no sense.{}\n",
        style.dim, r.slabs_reread, r.dropped, style.off);
  }
  return out;
}

std::string findings_text(const Report& r, const View& view) {
  const Style style(view);
  if (r.findings.empty()) {
    return fmt::format(
        "{}Nothing to complain about:{} what is resident costs {:.2f} times what the program "
        "holds.\n",
        style.green, style.off, ratio(r.heap.resident, r.heap.allocated));
  }
  std::string out;
  const int columns = std::clamp(view.columns, 60, 100);
  for (const Finding& f : r.findings) {
    out += fmt::format("{}{}{}\n", style.red, f.what, style.off);
    out += wrapped("Why: " + f.cause, 2, columns);
    out += wrapped("Do: " + f.remedy, 2, columns);
    out += f.saving == 0 ? "  Saves nothing by itself."
                         : fmt::format("  Saves about {}.", size_text(f.saving));
    out +=
        fmt::format("{} A finding from {} on.{}\n\n", style.dim, size_text(f.threshold), style.off);
  }
  return out;
}

}  // namespace ashlar::frag
