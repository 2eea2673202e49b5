// SPDX-License-Identifier: MIT
// L6 · our own doors (ashlar/ashlar.h), but for those of heaps and compaction; and the library's
// first and last calls.
#include "ashlar/ashlar.h"

#include <unistd.h>

#include "../frag_metrics/summary.h"
#include "door.h"
#include "heap.h"
#include "maintenance.h"
#include "options.h"
#include "os.h"
#include "stats.h"

using namespace ashlar;

ASHLAR_DOOR const char* ashlar_version(void) { return ASHLAR_VERSION; }

ASHLAR_DOOR int ashlar_get_stats(ashlar_stats* result) {
  HeapStats stats;
  collect_stats(stats);
  result->allocated = stats.allocated;
  result->magazines = stats.magazines;
  result->active = stats.active;
  result->dirty = stats.dirty;
  result->mapped = stats.mapped;
  result->metadata = stats.metadata;
  result->resident = stats.resident;
  return 0;
}

ASHLAR_DOOR int ashlar_report(int fd) {
  if (::write(fd, "", 0) < 0) return -1;
  write_summary(Output(fd));
  return 0;
}

ASHLAR_DOOR int ashlar_report_json(int fd) {
  if (::write(fd, "", 0) < 0) return -1;
  write_json(Output(fd));
  return 0;
}

// --- start and end ------------------------------------------------------------------------------

namespace {

// Many programs, GNU's small ones first, close stderr before they end. So the exit report keeps
// what it was at the start, and looks whether the program has closed that, too, and reused the
// number.
struct FirstStderr {
  int file = -1;
  os::FileIdentity identity;
};
FirstStderr first_stderr;

void keep_stderr() {
  first_stderr.file = os::duplicate(STDERR_FILENO);
  first_stderr.identity = os::identity_of(first_stderr.file);
}

int file_for_report() {
  if (os::has_locked_itself_in() || os::identity_of(STDERR_FILENO).exists) return STDERR_FILENO;
  const bool is_kept = os::identity_of(first_stderr.file) == first_stderr.identity;
  return is_kept ? first_stderr.file : STDERR_FILENO;
}

[[gnu::constructor(101)]] void start() {
  read_options();
  if (options.exit_report != 0) keep_stderr();
  heap.start();
  maintenance.start();
}

[[gnu::destructor(101)]] void end() {
  maintenance.stop_thread();
  if (options.exit_report == 1) write_summary(Output(file_for_report()));
  if (options.exit_report == 2) write_json(Output(file_for_report()));
}

}  // namespace
