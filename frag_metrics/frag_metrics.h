/* SPDX-License-Identifier: MIT
 *
 * frag_metrics for C: a snapshot of a heap, taken from outside, and numbers about it.
 *
 * The process is not stopped and not changed. README.md beside this file defines every number; all
 * are bytes unless the name says otherwise. A snapshot is a value: any thread may read it, one at a
 * time may free it. C++ programs have more, in snapshot.h, capture.h and metrics.h.
 *
 * Errors. What takes an `error` writes a sentence of at most `error_bytes` bytes there, zero at the
 * end, when it fails; both may be zero. Targets may be corrupt or hostile: the result is an error,
 * never a crash, and no more than 2 GiB of memory are used.
 */
#ifndef ASHLAR_FRAG_METRICS_H
#define ASHLAR_FRAG_METRICS_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct frag_snapshot frag_snapshot;

/* The heap of a living process, or null. Needs the right to read its memory (ptrace(2)). */
frag_snapshot* frag_capture_process(int64_t pid, char* error, size_t error_bytes);
/* The heap in an ELF core file, or null. */
frag_snapshot* frag_capture_core(const char* path, char* error, size_t error_bytes);
void frag_free(frag_snapshot* snapshot);

typedef struct frag_waterfall {
  uint64_t allocated;
  uint64_t magazines;
  uint64_t pending;
  uint64_t gaps;
  uint64_t active; /* the sum of the four above */
  uint64_t untouched;
  uint64_t dirty;
  uint64_t metadata;
  uint64_t resident; /* active - untouched + dirty + metadata */
  uint64_t mapped;
  uint64_t swapped;
} frag_waterfall;
void frag_get_waterfall(const frag_snapshot* snapshot, frag_waterfall* result);

typedef struct frag_class {
  uint64_t slot_bytes;
  uint64_t slabs;       /* number */
  uint64_t slots;       /* number, in those slabs */
  uint64_t objects;     /* number, live, also those in mosaics */
  uint64_t free;        /* in slots that are not live */
  uint64_t deciles[10]; /* number of slabs by the part of their slots that is live */
} frag_class;
/* Writes up to `room` classes that have slabs or objects, ascending. Returns how many there are. */
size_t frag_get_classes(const frag_snapshot* snapshot, frag_class* classes, size_t room);

/* The part of free memory, 0 to 1, in which no request of so many pages fits. */
double frag_unusable_free_space(const frag_snapshot* snapshot, uint64_t request_pages);
/* What merging runs of so many pages (1 to 16) would save. */
uint64_t frag_meshable(const frag_snapshot* snapshot, uint32_t run_pages);

/* The whole report as JSON, findings included. Give it to free(3). Null: out of memory. */
char* frag_json(const frag_snapshot* snapshot);

#ifdef __cplusplus
}
#endif

#endif
