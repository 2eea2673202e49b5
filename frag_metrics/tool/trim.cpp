// SPDX-License-Identifier: MIT
// Asks a process to give memory back.
#include <algorithm>
#include <filesystem>
#include <fmt/format.h>
#include <fstream>

#include "../capture.h"
#include "../text.h"
#include "print.h"

namespace ashlar::frag {

namespace {

// Whether the allocator's own thread runs in that process: see os::name_thread.
bool has_maintenance_thread(std::int64_t pid) {
  namespace fs = std::filesystem;
  std::error_code ignored;
  const fs::directory_iterator threads(fmt::format("/proc/{}/task", pid), ignored);
  return std::any_of(begin(threads), end(threads), [](const fs::directory_entry& thread) {
    std::ifstream comm(thread.path() / "comm");
    std::string name;
    return std::getline(comm, name) && name == "ashlar";
  });
}

// No other process can take pages from it without a race: it would have to be stopped.
const char* when_it_sleeps(bool has_thread) {
  return has_thread
             ? "Its thread \"ashlar\" gives back by itself what has not been used for purge_ms."
             : "A program that sleeps gives nothing back; with background:always it would.";
}

}  // namespace

int run_trim(const std::string& name, Milliseconds patience, const View& view) {
  const std::unique_ptr<Target> target = open_target(name);
  const std::uint64_t root = find_arena(*target);
  // Nothing is written before the root has proved to be one.
  const Snapshot before = capture(*target, root);
  if (before.source != "process") {
    target->complain("only a living process can be asked to trim");
  }
  const bool answered = ask_to_trim(before.pid, root, static_cast<int>(patience.count()));
  const bool has_thread = has_maintenance_thread(before.pid);
  const std::uint64_t was = waterfall(before).resident;
  const std::uint64_t is = waterfall(capture(*target, root)).resident;
  if (view.json) {
    fmt::print("{}\n", json_text({{"schema", kSchema},
                                  {"answered", answered},
                                  {"maintenance_thread", has_thread},
                                  {"resident_before", was},
                                  {"resident_after", is}}));
  } else if (answered) {
    fmt::print("resident {} before, {} after: {}\n", size_text(was), size_text(is),
               change_text(static_cast<std::int64_t>(is - was)));
  } else {
    fmt::print("asked, but no thread has used the allocator since; it is done when one does.\n{}\n",
               when_it_sleeps(has_thread));
  }
  return answered ? kFine : kFindings;
}

}  // namespace ashlar::frag
