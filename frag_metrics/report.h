// SPDX-License-Identifier: MIT
// report: every metric of one snapshot, computed once, and its form as JSON.
//
// What:    what all outputs print: the screen, the page, Prometheus, and the JSON that can be kept
//          and read again. The JSON carries `schema`; a reader refuses a number it does not know.
// Threads: pure functions.
#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "doctor.h"
#include "metrics.h"
#include "samples.h"

namespace ashlar::frag {

inline constexpr int kSchema = 1;

// Requests for which the unusable free space is told: a page, a unit, a chunk.
inline constexpr std::uint64_t kRequestPages[] = {1, kPagesPerUnit, kPagesPerChunk};

struct Unusable {
  std::uint64_t request_pages = 0;
  double index = 0;
};

struct Meshable {
  std::uint32_t run_pages = 0;
  std::uint64_t bytes = 0;
};

struct Report {
  std::string source;
  std::string program;
  std::int64_t pid = 0;
  std::string release;
  std::int64_t unix_time = 0;
  std::uint64_t slabs_reread = 0;
  std::uint64_t dropped = 0;

  Waterfall heap;
  std::optional<Requested> requested;  // always, but in reports of earlier releases
  std::optional<ProcessMemory> process;
  std::optional<std::vector<Holder>> holders;
  std::uint64_t large_blocks = 0;
  std::uint64_t large_bytes = 0;
  std::optional<std::vector<ProgramHeapUse>> program_heaps;  // always, as above
  std::uint64_t lanes = 0;                                   // of threads
  std::uint64_t lanes_leased = 0;
  std::vector<ClassMetrics> classes;
  Mosaics mosaics;
  EmptyPages empty;
  std::vector<Meshable> meshable;
  DirtyAge dirty;
  FreeRuns free_runs;
  std::vector<Unusable> unusable;
  std::optional<HugePages> huge;
  std::vector<Finding> findings;
};

Report make_report(const Snapshot& snapshot);

nlohmann::json to_json(const Report& report);
// Error when it is not such a JSON, or of another schema.
Report report_from_json(const nlohmann::json& json);
nlohmann::json to_json(const Waterfall& heap);
nlohmann::json to_json(const JohnstoneWilson& figures);
// The moments, and the four figures over them.
nlohmann::json to_json(std::span<const Moment> recording);

nlohmann::json to_json(std::span<const Site> sites);

// As text. Names of programs need not be UTF-8: what is not is replaced.
std::string json_text(const nlohmann::json& json, int indent = -1);

// part ÷ whole, 0 when the whole is 0.
inline double ratio(std::uint64_t part, std::uint64_t whole) {
  return whole == 0 ? 0 : static_cast<double>(part) / static_cast<double>(whole);
}

}  // namespace ashlar::frag
