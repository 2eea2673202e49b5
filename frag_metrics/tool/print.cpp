// SPDX-License-Identifier: MIT
#include "print.h"

#include <algorithm>
#include <cmath>
#include <fmt/format.h>

#include "../text.h"

namespace ashlar::frag {

namespace {

constexpr std::size_t kMostClasses = 10;

// How wide lines may be: what goes to a file is not cut.
int width_of(const View& view) { return view.terminal ? view.columns : 100; }

// The columns that a text takes; escape sequences take none, and any other character one.
std::size_t columns_of(std::string_view text) {
  std::size_t n = 0;
  for (std::size_t i = 0; i < text.size(); i++) {
    if (text[i] == '\x1b') {
      while (i + 1 < text.size() && text[i] != 'm') i++;
    } else if ((text[i] & 0xc0) != 0x80) {
      n++;
    }
  }
  return n;
}

// As many to a line as fit.
std::string flowed(const std::vector<std::string>& items, int columns) {
  constexpr std::string_view kIndent = "  ";
  constexpr std::string_view kBetween = "   ";
  std::string out;
  std::string line;
  for (const std::string& item : items) {
    const std::size_t needed = columns_of(line) + kBetween.size() + columns_of(item);
    if (!line.empty() && needed > static_cast<std::size_t>(columns)) {
      out += line + '\n';
      line.clear();
    }
    line.append(line.empty() ? kIndent : kBetween).append(item);
  }
  return out + line + '\n';
}

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

void put_waterfall(std::string& out, const Report& r, const View& view) {
  constexpr int kNumbers = 32;  // columns of name, bytes and percent
  constexpr int kWords = 28;
  const Style style(view);
  const Waterfall& w = r.heap;
  const int cells = std::clamp(width_of(view) - kNumbers - kWords, 8, 24);
  const bool has_words = width_of(view) >= kNumbers + kWords + cells;
  const auto rung = [&](const char* name, std::uint64_t bytes, std::string_view what,
                        bool total = false) {
    out += fmt::format("  {}{:<11}{}{:>10}{:>7}  ", total ? style.bold : "", name, style.off,
                       size_text(bytes), percent_text(bytes, w.mapped));
    const std::string part = bar(ratio(bytes, w.mapped), cells);
    out += has_words ? fmt::format("{:<{}}  {}{}{}\n", part, cells, style.dim, what, style.off)
                     : part + '\n';
  };
  if (r.requested && r.requested->estimate) {
    const auto deviations = size_text(2 * r.requested->deviation.value_or(0));
    rung("requested", *r.requested->estimate, fmt::format("by samples, ±{}", deviations));
  } else if (r.requested) {
    rung("requested ≥", r.requested->least, "before rounding up");
  }
  rung("allocated", w.allocated, "held by the program");
  rung("magazines", w.magazines, "kept at hand by threads");
  rung("pending", w.pending, "freed by other threads");
  rung("slab gaps", w.gaps, "free slots, tails of slabs");
  rung("active", w.active, "the sum of these four", true);
  rung("untouched", w.untouched, "of these, not in memory");
  rung("dirty", w.dirty, "free pages in memory");
  rung("metadata", w.metadata, "the allocator's own data");
  rung("resident", w.resident, "all that is in memory", true);
  rung("mapped", w.mapped, "active and free pages", true);
  if (w.swapped != 0) rung("swapped", w.swapped, "out of memory, in swap");
}

// What is one number, or two.
std::vector<std::string> ratios(const Report& r) {
  const Waterfall& w = r.heap;
  std::vector<std::string> items;
  items.push_back(fmt::format("resident / allocated {:.2f}", ratio(w.resident, w.allocated)));
  items.push_back(fmt::format("active / allocated {:.2f}", ratio(w.active, w.allocated)));
  if (r.process) {
    items.push_back(fmt::format("process: RSS {}, PSS {}", size_text(r.process->rss),
                                size_text(r.process->pss)));
  }
  items.push_back(
      fmt::format("large objects {} with {}", r.large_blocks, size_text(r.large_bytes)));
  items.push_back(fmt::format("lanes {}, {} in use", r.lanes, r.lanes_leased));
  items.push_back(fmt::format("empty pages in slabs {}", size_text(r.empty.empty)));
  if (r.mosaics.mosaics != 0) {
    items.push_back(fmt::format("mosaics {} with {} objects, {} free in them", r.mosaics.mosaics,
                                r.mosaics.objects, size_text(r.mosaics.free)));
  }
  items.push_back(
      fmt::format("free runs: longest {}", size_text(r.free_runs.longest * kPageBytes)));
  items.push_back(fmt::format("unusable for 64 KiB {:.2f}, for 2 MiB {:.2f}",
                              r.unusable.at(1).index, r.unusable.at(2).index));
  if (r.huge) {
    items.push_back(fmt::format("huge pages {}", percent_text(r.huge->covered, r.huge->resident)));
  }
  return items;
}

void put_holders(std::string& out, const Report& r, const Style& style) {
  if (!r.holders || r.holders->empty()) return;
  out += fmt::format("{}   process  name             lanes        holds{}\n", style.dim, style.off);
  for (const Holder& h : *r.holders) {
    out += fmt::format("{:>10}  {:<15}{:>7}{:>13}{}{}\n", h.pid, h.name, h.lanes, size_text(h.held),
                       h.scoped ? "  scoped" : "", h.alive ? "" : "  dead, not recovered");
  }
  out += '\n';
}

void put_program_heaps(std::string& out, const Report& r, const Style& style) {
  constexpr std::size_t kMost = 8;
  if (!r.program_heaps || r.program_heaps->empty()) return;
  const std::vector<ProgramHeapUse>& heaps = *r.program_heaps;
  out += fmt::format("{}      heap    objects   allocated      active{}\n", style.dim, style.off);
  const auto put = [&](const auto& name, const ProgramHeapUse& heap) {
    out += fmt::format("{:>10}{:>11}{:>12}{:>12}\n", name, heap.objects, size_text(heap.allocated),
                       size_text(heap.active));
  };
  ProgramHeapUse others;
  for (std::size_t i = 0; i < heaps.size(); i++) {
    if (i < kMost) {
      put(heaps[i].number, heaps[i]);
      continue;
    }
    others.objects += heaps[i].objects;
    others.allocated += heaps[i].allocated;
    others.active += heaps[i].active;
  }
  if (heaps.size() > kMost) put(fmt::format("{} others", heaps.size() - kMost), others);
  out += '\n';
}

void put_classes(std::string& out, const Report& r, const View& view, std::size_t most_classes) {
  constexpr int kNumbers = 75;  // columns without the bar
  constexpr int kLeastCells = 8, kMostCells = 16;
  const Style style(view);
  const int cells = std::min(width_of(view) - kNumbers - 2, kMostCells);
  std::vector<ClassMetrics> sorted = r.classes;
  std::ranges::stable_sort(sorted, std::ranges::greater(), &ClassMetrics::free);
  if (sorted.empty()) return;
  const std::uint64_t most = std::max<std::uint64_t>(sorted[0].free, 1);
  out += fmt::format(
      "{}      slot   slabs    objects    used   allocated        free  {}{}\n", style.dim,
      cells == kMostCells ? "slabs by occupancy, 0 to 100 %" : "0 to 100 %", style.off);
  for (std::size_t i = 0; i < std::min(sorted.size(), most_classes); i++) {
    const ClassMetrics& c = sorted[i];
    if (c.free * 100 < most) break;
    std::string deciles;
    const std::uint64_t highest = *std::ranges::max_element(c.deciles);
    for (const std::uint64_t n : c.deciles) {
      static constexpr const char* kHeights[] = {"·", "▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"};
      deciles += kHeights[n == 0 ? 0 : std::max<std::uint64_t>(n * 8 / highest, 1)];
    }
    out +=
        fmt::format("{:>8} B{:>8}{:>11}{:>8}{:>12}{:>12}  {}", c.slot_bytes, c.slabs, c.live,
                    percent_text(c.live, c.slots),
                    size_text((c.live + c.in_mosaics) * c.slot_bytes), size_text(c.free), deciles);
    out += cells < kLeastCells ? "\n" : fmt::format("  {}\n", bar(ratio(c.free, most), cells));
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

std::string cut(const std::string& line, int columns) {
  std::size_t room = static_cast<std::size_t>(columns);
  if (columns_of(line) <= room) return line;
  std::string out;
  for (std::size_t i = 0; i < line.size(); i++) {
    const bool is_sequence = line[i] == '\x1b';
    const std::size_t begin = i;
    while (is_sequence && i + 1 < line.size() && line[i] != 'm') i++;
    while (!is_sequence && i + 1 < line.size() && (line[i + 1] & 0xc0) == 0x80) i++;
    if (!is_sequence && room == 0) continue;
    out += line.substr(begin, i + 1 - begin);
    room -= is_sequence ? 0 : 1;
  }
  return out;
}

std::string title_text(const Report& r, const View& view) {
  const Style style(view);
  return fmt::format(
      "{}{}{} ({}), Ashlar {}\n", style.bold, r.program, style.off,
      r.holders ? "an arena in shared memory" : fmt::format("{} {}", r.source, r.pid), r.release);
}

std::string screen_text(const Report& r, const View& view, const std::string& history) {
  std::string out = title_text(r, view) + history;
  // Lines between the parts only where there is room for all.
  const char* const gap = view.lines >= 40 ? "\n" : "";
  out += gap;
  put_waterfall(out, r, view);
  out.append(gap).append(flowed(ratios(r), width_of(view))).append(gap);
  const auto room = view.lines - std::ranges::count(out, '\n') - 2;  // but a header and a footer
  if (room > 0) put_classes(out, r, view, static_cast<std::size_t>(room));
  return out;
}

std::string report_text(const Report& r, const View& view) {
  const Style style(view);
  std::string out = title_text(r, view) + '\n';
  put_waterfall(out, r, view);
  out += '\n' + flowed(ratios(r), width_of(view)) + '\n';
  put_holders(out, r, style);
  put_program_heaps(out, r, style);
  put_classes(out, r, view, kMostClasses);
  out += '\n' + findings_text(r, view);
  if (r.slabs_reread != 0 || r.dropped != 0) {
    out += fmt::format(
        "{}{} slabs changed while being read and were read again; {} records made no sense.{}\n",
        style.dim, r.slabs_reread, r.dropped, style.off);
  }
  return out;
}

std::string findings_text(const Report& r, const View& view) {
  const Style style(view);
  if (r.heap.mapped == 0) {
    return "It has never taken memory from Ashlar: a malloc of its own may come first.\n";
  }
  if (r.findings.empty()) {
    return fmt::format("{}Nothing to complain about:{} {} are resident, {} allocated.\n",
                       style.green, style.off, size_text(r.heap.resident),
                       size_text(r.heap.allocated));
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
