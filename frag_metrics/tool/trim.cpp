// SPDX-License-Identifier: MIT
// Asks a process to give memory back.
#include <fmt/format.h>

#include "../capture.h"
#include "../text.h"
#include "print.h"

namespace ashlar::frag {

int run_trim(const std::string& name, Milliseconds patience, const View& view) {
  const std::unique_ptr<Target> target = open_target(name);
  const std::uint64_t root = find_arena(*target);
  // Nothing is written before the root has proved to be one.
  const Snapshot before = capture(*target, root);
  if (before.source != "process") throw Error("only a living process can be asked to trim");
  const bool answered = ask_to_trim(before.pid, root, static_cast<int>(patience.count()));
  const std::uint64_t was = waterfall(before).resident;
  const std::uint64_t is = waterfall(capture(*target, root)).resident;
  if (view.json) {
    fmt::print("{}\n", json_text({{"schema", kSchema},
                                  {"answered", answered},
                                  {"resident_before", was},
                                  {"resident_after", is}}));
  } else if (answered) {
    fmt::print("resident {} before, {} after: {}\n", size_text(was), size_text(is),
               change_text(static_cast<std::int64_t>(is - was)));
  } else {
    fmt::print(
        "asked, but no thread has used the allocator since; it will be done when one does\n");
  }
  return answered ? kFine : kFindings;
}

}  // namespace ashlar::frag
