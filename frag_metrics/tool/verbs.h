// SPDX-License-Identifier: MIT
// verbs: the commands of the tool, a function each.
//
// What:    each takes what the command line says and returns the exit code: 0 all is well, 1 there
//          are findings, 2 it could not be done (by exception: Error says why).
#pragma once

#include <chrono>
#include <string>
#include <vector>

#include "../report.h"
#include "../target.h"

namespace ashlar::frag {

enum ExitCode : int { kFine = 0, kFindings = 1, kFailed = 2 };

struct View {
  bool json = false;
  bool color = false;
  bool terminal = false;
  bool drawable = false;  // a terminal that knows escape sequences
  int columns = 80;
  int lines = 24;
};

// What standard output is now, and how large.
View view_of_terminal();

using Milliseconds = std::chrono::milliseconds;

// --- targets (targets.cpp) ----------------------------------------------------------------------

bool is_pid(std::string_view name);
// "1234", "shm:NAME", or the path of a core file or of a shared arena.
std::unique_ptr<Target> open_target(const std::string& name);
// The same, or a report that was kept as JSON.
Report load_report(const std::string& name);
// Call sites of a target's samples; none when it takes none.
std::vector<Site> sites_of(Target& target, const std::string& name, const Snapshot& snapshot);
// What to throw where an arena is asked for that is not there.
Error no_such_arena(const std::string& name);
void write_file(const std::string& path, const std::string& text);
// The processes of this machine that may be read and have the library mapped.
std::vector<std::int64_t> processes_on_ashlar();

// --- verbs --------------------------------------------------------------------------------------

int run_report(const std::string& target, const std::string& html, const View& view);
int run_doctor(const std::string& target, const View& view);
int run_map(const std::string& target, const View& view);
// `frames`: after so many it ends; 0: never, but by 'q' or a signal.
int run_top(const std::string& target, Milliseconds every, int frames, bool json);
int run_diff(const std::string& before, const std::string& after, const View& view);

enum class Format { json, prometheus, csv };
int run_export(const std::vector<std::string>& targets, Format format);

enum class SitesForm { text, json, folded, pprof };
int run_sites(const std::string& target, SitesForm form, const View& view);

int run_trim(const std::string& target, Milliseconds patience, const View& view);

// Arenas in shared memory by "NAME", "shm:NAME" or path (shm.cpp).
int run_shm_list(const View& view);
int run_shm_stat(const std::string& arena, const View& view);
// Findings: it is not sound.
int run_shm_check(const std::string& arena, const View& view);
int run_shm_recover(const std::string& arena, const View& view);
// `any_file`: also what is no arena of this build.
int run_shm_remove(const std::string& arena, bool any_file, const View& view);

struct Recording {
  Milliseconds every{1000};
  std::string html;  // empty: none
  std::string json;  // empty: none
  bool prints_json = false;  // in the end, on standard output
};
// Returns the program's own exit code.
int run_program(const std::vector<std::string>& command, const Recording& recording);

// `listen`: "127.0.0.1:9189". No processes: all that are found. Says where it listens, `json`: as
// an object with "listening", its address.
int run_serve(const std::string& listen, const std::vector<std::string>& targets, bool json);

}  // namespace ashlar::frag
