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

#include <ashlar/passes.h>
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

/* --- Pools of objects that move ------------------------------------------------------------------
 *
 * A pool is a heap whose objects may move. Each has a tag, a number or an address of the program's,
 * by which it finds the pointers to the object. Objects move in passes, and only then: between a
 * begin and its end by hand, or in ashlar_pool_compact(), which calls a function of the program.
 *
 * Thread-safe, also in the child of a fork; not async-signal-safe. None of our locks is held while
 * code of the program runs: it may allocate, free (objects of the pool, too), fork, or refuse. An
 * object takes 16 bytes besides; where the two are larger than 32 KiB it stays where it is. free()
 * does not take objects of a pool. What can be known to be wrong ends the program with one line. */

/* Copies an object and corrects the pointers to it, keeping other threads away meanwhile as the
 * program sees fit. An object that another thread frees while it moves is freed, whatever this
 * returns. */
typedef ashlar_verdict ashlar_relocate(void *context, void *from, void *to, size_t bytes,
                                       uint64_t tag);

/* A new pool. relocate: null where all passes are by hand. Null and ENOMEM. */
ashlar_pool *ashlar_pool_create(ashlar_relocate *relocate, void *context);
/* Ends the lives of all its objects. No other thread may use it or them any more. */
void ashlar_pool_destroy(ashlar_pool *pool);

/* As malloc and free. Null and ENOMEM. Objects are aligned to 16 bytes. */
void *ashlar_pool_malloc(ashlar_pool *pool, size_t bytes, uint64_t tag);
void ashlar_pool_free(ashlar_pool *pool, void *object);
size_t ashlar_pool_usable_size(ashlar_pool *pool, const void *object);
uint64_t ashlar_pool_tag(ashlar_pool *pool, const void *object);

/* As ashlar_heap_get_stats; what is in front of each object counts as allocated. allocated ÷ active
 * is the density that passes raise. */
struct ashlar_heap_stats;
int ashlar_pool_get_stats(ashlar_pool *pool, struct ashlar_heap_stats *stats);

/* Keeps an object where it is until as many unpins. 0; or -1 and EBUSY: it is moving right now, and
 * the program's own lock tells where to. */
int ashlar_pool_pin(ashlar_pool *pool, void *object);
void ashlar_pool_unpin(ashlar_pool *pool, void *object);

/* Begins a pass, of so many microseconds and bytes to be copied at most (UINT64_MAX, SIZE_MAX: as
 * many as it takes), and fills moves[0 .. n). Returns how many; what was left out is proposed by the
 * next pass. 0: nothing is worth it now; the pass must be ended nevertheless. -1 and EBUSY: another
 * pass of this pool goes on. */
ptrdiff_t ashlar_pool_begin(ashlar_pool *pool, uint64_t budget_us, size_t budget_bytes,
                            ashlar_move *moves, size_t n);
/* Not 0: the microseconds are over. What was not copied yet is to be skipped. */
int ashlar_pool_should_stop(ashlar_pool *pool);
/* Ends the pass that the calling thread began, with the same moves and their verdicts. */
void ashlar_pool_end(ashlar_pool *pool, const ashlar_move *moves, size_t n, ashlar_moved *moved);

/* Passes with the pool's own function, up to the budget. Adds to *moved. Returns 1: there may be
 * more to do; 0: all was looked at. -1 and EBUSY as above; -1 and EINVAL: the pool has no function. */
int ashlar_pool_compact(ashlar_pool *pool, uint64_t budget_us, size_t budget_bytes,
                        ashlar_moved *moved);

/* The offer of a quiet moment: until this returns, no other thread uses objects of pools, destroys
 * a pool, or waits for what this one holds. Passes over one pool after the other, of all that have
 * a function or handles, for so many microseconds at most; the next call goes on where this one
 * ended. A program calls it where it would otherwise sleep, and need not know who has pools. Adds to
 * *moved. Returns 1: there may be more to do; 0: all was looked at. */
int ashlar_quiescent(uint64_t budget_us, ashlar_moved *moved);

/* --- Pools of objects with handles ---------------------------------------------------------------
 *
 * A handle stands for an object. The object has an address while it is locked; while nobody has it
 * locked, ashlar_pool_compact() may move it. A handle whose object was freed is refused, also when
 * its place is in use again. In C++: <ashlar/compact.hpp>. The same in shared memory: <ashlar/shm.h>.
 *
 * Thread-safe, also in the child of a fork, where what other threads had locked stays so; not
 * async-signal-safe. No lock waits for a pass, nor a pass for a lock. An object takes 32 bytes
 * besides. Such pools know nothing of tags: of the calls above they take destroy, get_stats and
 * compact.
 * ESTALE: the handle's object was freed, or there never was one. */

/* Null and ENOMEM. */
ashlar_pool *ashlar_pool_create_for_handles(void);
/* An object, aligned to 16 bytes; its content is not set, and nothing but its bytes is moved with
 * it. Those of more than 32,752 bytes never move. 0 and ENOMEM. */
ashlar_handle ashlar_pool_handle_alloc(ashlar_pool *pool, size_t bytes);
/* From now on the handle is refused. Whoever has the object locked may go on until he unlocks it. 0
 * is fine. 0; or -1 and ESTALE. */
int ashlar_pool_handle_free(ashlar_pool *pool, ashlar_handle handle);
/* Where the object is until it is unlocked as often as it was locked, by whichever threads. A lock
 * keeps nobody else out. Null and ESTALE. With the unlock two atomic steps, about 13 ns. */
void *ashlar_pool_handle_lock(ashlar_pool *pool, ashlar_handle handle);
/* -1 and EINVAL: it is not locked. */
int ashlar_pool_handle_unlock(ashlar_pool *pool, ashlar_handle handle);
/* Bytes of the object that can be used, at least as many as were asked for. 0 and ESTALE. */
size_t ashlar_pool_handle_size(ashlar_pool *pool, ashlar_handle handle);

/* --- Notices -------------------------------------------------------------------------------------
 *
 * One function of the program's is told what happens. It runs without locks of ours, and never
 * inside malloc or free: it may allocate, free, compact, fork, and set another one. */

/* From now on notify(context, notice) is told; null: nobody. Another one that was running goes on.
 *
 * Passes: by the thread that begins and ends them, once each: by hand, for each call of
 * ashlar_pool_compact, and for each pool in ashlar_quiescent.
 *
 * Memory: by a thread of ours, called "ashlar", with all signals blocked and a stack of 128 KiB. It
 * looks twice a second, also while the program sleeps, and tells at each look while the control
 * group of the process uses more than nine tenths of its limit, or its threads (without a group,
 * those of the machine) had to wait for memory in a tenth of the last ten seconds, as the kernel
 * counts (PSI; then the excess may be 0); and once when that is over. Until the function returns,
 * that thread gives no memory back. If it forks, the child ends with the function; call _exit.
 *
 * Thread-safe; not async-signal-safe. The child of a fork keeps the function, and calls this again
 * to be told of memory. 0; or -1 and ENOTSUP: there can be no thread of ours (background:never,
 * purge_ms:-1, seccomp), and only passes are told of. */
int ashlar_set_notify(ashlar_notify *notify, void *context);

#ifdef __cplusplus
}
#endif

#endif
