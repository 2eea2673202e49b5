/* SPDX-License-Identifier: MIT
 *
 * What passes over objects that move have in common, on the heap (<ashlar/compact.h>) and in shared
 * arenas (<ashlar/shm.h>), which include this.
 */
#ifndef ASHLAR_PASSES_H
#define ASHLAR_PASSES_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct ashlar_pool ashlar_pool;
typedef uint64_t ashlar_handle; /* of an object that may be moved; 0 is null */

/* What became of an object that was to move. */
typedef enum ashlar_verdict {
  ASHLAR_SKIP,   /* it stays where it was */
  ASHLAR_COPIED, /* its bytes are at the new place, and no pointer leads to the old one any more */
  ASHLAR_FREED   /* it is not needed: both places go. Do not free it besides */
} ashlar_verdict;

/* One move that is proposed. `to` is at the program's disposal until the pass ends. */
typedef struct ashlar_move {
  void *from;
  void *to;
  size_t bytes; /* to be copied: usable bytes of both */
  uint64_t tag;
  ashlar_verdict verdict; /* for the program to set; it is ASHLAR_SKIP */
} ashlar_move;

/* What passes did. Each adds to it. */
typedef struct ashlar_moved {
  uint64_t objects; /* copied */
  uint64_t bytes;   /* in them */
  uint64_t skipped; /* objects that stayed */
  uint64_t freed;   /* bytes of slabs that are empty now, and went back to the heap */
} ashlar_moved;

/* What a program may be told of: ashlar_set_notify, ashlar_shm_set_notify. */
typedef enum ashlar_event {
  ASHLAR_PASS_BEGINS, /* nothing is chosen yet */
  ASHLAR_PASS_ENDED,  /* it may go on with the next one; `moved`: what this one did */
  ASHLAR_MEMORY_SHORT,
  ASHLAR_MEMORY_ENOUGH
} ashlar_event;

typedef struct ashlar_notice {
  ashlar_event event;
  ashlar_pool *pool; /* of a pass on the heap */
  ashlar_moved moved;
  size_t excess_bytes;      /* of short memory: more than nine tenths of the limit */
  struct ashlar_shm *arena; /* of all that concerns a shared arena; null: the heap */
} ashlar_notice;

typedef void ashlar_notify(void *context, const ashlar_notice *notice);

#ifdef __cplusplus
}
#endif

#endif
