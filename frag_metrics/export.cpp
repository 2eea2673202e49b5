// SPDX-License-Identifier: MIT
#include "export.h"

#include <fmt/format.h>
#include <functional>
#include <iterator>

namespace ashlar::frag {

namespace {

struct Series {
  const char* name;
  const char* help;
  std::function<double(const Report&)> value;
};

struct ClassSeries {
  const char* name;
  const char* help;
  std::function<std::uint64_t(const ClassMetrics&)> value;
};

double number(std::uint64_t n) { return static_cast<double>(n); }

const std::vector<Series>& series() {
  static const std::vector<Series> all = {
      {"requested_least_bytes", "What the program asked for, before rounding up, is this or more.",
       [](const Report& r) { return r.requested ? number(r.requested->least) : 0; }},
      {"allocated_bytes", "Held by the program, rounded up to slots and pages.",
       [](const Report& r) { return number(r.heap.allocated); }},
      {"magazine_bytes", "Free memory that threads keep at hand.",
       [](const Report& r) { return number(r.heap.magazines); }},
      {"pending_bytes", "Freed by other threads than allocated it, not taken over yet.",
       [](const Report& r) { return number(r.heap.pending); }},
      {"gap_bytes", "Free slots and tails of slabs.",
       [](const Report& r) { return number(r.heap.gaps); }},
      {"active_bytes", "All slabs and large blocks.",
       [](const Report& r) { return number(r.heap.active); }},
      {"untouched_bytes", "Of active, not in memory.",
       [](const Report& r) { return number(r.heap.untouched); }},
      {"dirty_bytes", "Free pages that are in memory.",
       [](const Report& r) { return number(r.heap.dirty); }},
      {"metadata_bytes", "The allocator's own data that is in memory.",
       [](const Report& r) { return number(r.heap.metadata); }},
      {"resident_bytes", "Of the heap, in memory.",
       [](const Report& r) { return number(r.heap.resident); }},
      {"swapped_bytes", "Of the heap, in swap.",
       [](const Report& r) { return number(r.heap.swapped); }},
      {"mapped_bytes", "Active and free pages, and lanes.",
       [](const Report& r) { return number(r.heap.mapped); }},
      {"empty_page_bytes", "Pages in memory of slabs, without a live object.",
       [](const Report& r) { return number(r.empty.empty); }},
      {"mosaic_bytes", "Slabs that were re-cut for objects of all sizes.",
       [](const Report& r) { return number(r.mosaics.active); }},
      {"findings", "What the doctor has to say.",
       [](const Report& r) { return number(r.findings.size()); }},
      {"lanes", "Threads' leases, used and unused.",
       [](const Report& r) { return number(r.lanes); }},
      {"program_heaps", "Heaps that the program made and that hold something.",
       [](const Report& r) { return r.program_heaps ? number(r.program_heaps->size()) : 0; }},
      {"program_heaps_active_bytes", "Of active, in heaps that the program made.",
       [](const Report& r) {
         std::uint64_t bytes = 0;
         if (!r.program_heaps) return number(bytes);
         for (const ProgramHeapUse& heap : *r.program_heaps) bytes += heap.active;
         return number(bytes);
       }},
      {"large_objects", "Objects that have pages of their own.",
       [](const Report& r) { return number(r.large_blocks); }},
      {"unusable_free_space_ratio",
       "The part of free memory that no request of 2 MiB fits into (Gorman).",
       [](const Report& r) { return r.unusable.empty() ? 0 : r.unusable.back().index; }},
  };
  return all;
}

const std::vector<ClassSeries>& class_series() {
  static const std::vector<ClassSeries> all = {
      {"class_objects", "Objects of a size class.",
       [](const ClassMetrics& c) { return c.live + c.in_mosaics; }},
      {"class_slabs", "Slabs of a size class.", [](const ClassMetrics& c) { return c.slabs; }},
      {"class_free_bytes", "Free slots of a size class.",
       [](const ClassMetrics& c) { return c.free; }},
  };
  return all;
}

// A label's value: backslash, quote and newline are escaped; what is not ASCII becomes '?'.
std::string label(const std::string& text) {
  std::string out;
  for (const char c : text) {
    if (c == '\\' || c == '"') out += '\\';
    if (c == '\n') {
      out += "\\n";
    } else {
      out += c >= ' ' && c <= '~' ? c : '?';
    }
  }
  return out;
}

}  // namespace

std::string prometheus_text(std::span<const Report> reports) {
  std::string out;
  const auto put = std::back_inserter(out);
  const auto head = [&](const char* name, const char* help) {
    fmt::format_to(put, "# HELP ashlar_{} {}\n# TYPE ashlar_{} gauge\n", name, help, name);
  };
  for (const Series& s : series()) {
    head(s.name, s.help);
    for (const Report& r : reports) {
      fmt::format_to(put, "ashlar_{}{{pid=\"{}\",program=\"{}\"}} {}\n", s.name, r.pid,
                     label(r.program), s.value(r));
    }
  }
  for (const ClassSeries& s : class_series()) {
    head(s.name, s.help);
    for (const Report& r : reports) {
      for (const ClassMetrics& c : r.classes) {
        fmt::format_to(put, "ashlar_{}{{pid=\"{}\",program=\"{}\",slot_bytes=\"{}\"}} {}\n", s.name,
                       r.pid, label(r.program), c.slot_bytes, s.value(c));
      }
    }
  }
  return out;
}

std::string csv_text(std::span<const Report> reports) {
  std::string out = "pid,program,metric,slot_bytes,value\n";
  const auto put = std::back_inserter(out);
  const auto quoted = [](const std::string& text) {
    std::string q = "\"";
    for (const char c : text) q += c == '"' ? "\"\"" : std::string(1, c);
    return q + '"';
  };
  for (const Report& r : reports) {
    const std::string program = quoted(r.program);
    for (const Series& s : series()) {
      fmt::format_to(put, "{},{},{},,{}\n", r.pid, program, s.name, s.value(r));
    }
    for (const ClassMetrics& c : r.classes) {
      for (const ClassSeries& s : class_series()) {
        fmt::format_to(put, "{},{},{},{},{}\n", r.pid, program, s.name, c.slot_bytes, s.value(c));
      }
    }
  }
  return out;
}

}  // namespace ashlar::frag
