/* SPDX-License-Identifier: MIT
 *
 * Ashlar: compaction, for programs that can move their objects.
 *
 * malloc must not move what it has handed out. A program that knows every pointer to an object can:
 * it asks which objects are worth it, moves them, and corrects its pointers. docs/compaction.md
 * shows how.
 */
#ifndef ASHLAR_COMPACT_H
#define ASHLAR_COMPACT_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* --- Hints and moves, for objects of malloc ------------------------------------------------------
 *
 * Go through all objects, again and again, and move those with a hint; or those with a high hint
 * first. Hints come from a snapshot that ranks slabs by what emptying them would give for what must
 * be moved, so that nothing moves into a slab that is to be emptied itself. The snapshot is renewed
 * as one goes on, every 100 ms or less often: 1 % of the time at most. One thread should do it: a
 * move finds room in slabs of the calling thread, and of threads that have ended.
 *
 * Thread-safe; not async-signal-safe. Large objects (more than 32 KiB) and those of heaps of one's
 * own stay. */

/* 0: leave it; 1 to 255: move it, the highest first. p: any address; 0 where no object of malloc
 * is. A look-up; looks for a new snapshot at every 64th call of a thread. */
unsigned ashlar_frag_hint(const void *p);

/* The same for n addresses: scores[i] is the hint for objects[i]. Looks for a new snapshot once. */
void ashlar_frag_hint_batch(const void *const *objects, size_t n, uint8_t *scores);

/* Copies the object at p to a better place, frees the old one and returns the new one, which has the
 * same usable size and an alignment that is no smaller. No other thread may use the object
 * meanwhile. Null: it is not worth it, or there is no better place; the object stays. Keeps errno.
 * Where slabs are to be emptied, a p that free() would not take ends the program with one line. */
void *ashlar_frag_move(void *p);

#ifdef __cplusplus
}
#endif

#endif
