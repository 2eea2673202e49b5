/* SPDX-License-Identifier: MIT
 *
 * Ashlar: a malloc for Linux with fragmentation under control.
 *
 * Linking with libashlar (or preloading it) replaces malloc, free and their family, and the
 * C++ operators new and delete. Nothing in this header is needed for that.
 *
 * Caveats. Memory from this malloc must not be given to another one's free. A process has one
 * heap; it is never destroyed, and the library cannot be unloaded.
 */
#ifndef ASHLAR_ASHLAR_H
#define ASHLAR_ASHLAR_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define ASHLAR_VERSION_MAJOR 0
#define ASHLAR_VERSION_MINOR 1
#define ASHLAR_VERSION_PATCH 0

/* "0.1.0". Thread-safe, async-signal-safe. */
const char *ashlar_version(void);

/* A program may define this to bring its own settings: "purge_ms:500,exit_report:text". The
 * environment variable ASHLAR_CONF has the same form and wins. docs/options.md lists the keys. */
extern const char *ashlar_conf __attribute__((weak));

/* The heap in bytes. allocated <= active <= mapped; dirty, metadata and resident are measured. */
typedef struct ashlar_stats {
  uint64_t allocated; /* in slots and pages that the program holds; sizes rounded up to classes */
  uint64_t magazines; /* in free slots that threads keep at hand */
  uint64_t active;    /* in slabs and large blocks */
  uint64_t dirty;     /* in free pages that are in memory still */
  uint64_t mapped;    /* all chunks */
  uint64_t metadata;  /* of our own, in memory now */
  uint64_t resident;  /* of chunks and metadata, in memory now */
} ashlar_stats;

/* Fills *stats. Reads counters while other threads go on, so sums may be off by what they did
 * meanwhile. Costs a system call per 2 MiB of heap. Thread-safe, async-signal-safe; never
 * allocates. Returns 0. */
int ashlar_get_stats(ashlar_stats *stats);

/* Writes the account that exit_report:text shows to a file descriptor. Thread-safe,
 * async-signal-safe; never allocates. Returns 0, or -1 and errno when fd cannot be written to. */
int ashlar_report(int fd);

/* The same as one JSON object: "schema", "heap" with the numbers above in bytes, and "classes".
 * frag_metrics/README.md defines them. */
int ashlar_report_json(int fd);

#ifdef __cplusplus
}
#endif

#endif
