/* SPDX-License-Identifier: MIT
 *
 * Arenas in shared memory that survive kill -9.
 *
 * Several processes map one arena, each at an address of its own. Any of them may take a block,
 * free another's, or die at any instruction; the others go on. Blocks outlive the process that
 * took them unless it asked for scoped ones. Blocks are named between processes by offset.
 *
 * Link libashlar_shm; it does not replace malloc.
 *
 * Threads   every function may be called by any thread, except that nobody may use a handle that is
 *           being closed. A thread that takes blocks leases one of 512 lanes until it ends.
 * Signals   not for signal handlers, nor for threads that are cancelled (pthread_cancel) in a call:
 *           both may leave this process's own locks held. SIGKILL and SIGSTOP are no such signals.
 * fork      the child may go on with the handle; it counts as a process of its own.
 * Order     whoever finds a block under a name, or in a slot that was filled by malloc_into or
 *           exchange, sees what was written to it before. Other ways of handing over need
 *           release and acquire of their own.
 * Handles   are not null, except where that is said to be fine.
 * Errors    a null pointer, 0 or -1 as said below, and errno:
 *             ENOMEM  the arena, /dev/shm, the disk or the address space is full
 *             EDQUOT  this process holds as much as the quota allows
 *             EAGAIN  512 processes or 512 threads use the arena
 *             EACCES  not allowed, or the handle is read-only
 *             EINVAL  an argument makes no sense
 *             EMFILE  512 handles are open in this process
 *             EPROTO  it is no arena, or one of another version or layout
 *           and what open(2) and its like report.
 * Trust     an arena is for processes that trust each other with its content. A peer that scribbles
 *           over it can damage what is in it, but cannot make this library write outside of it or
 *           loop for ever. A named arena that somebody truncates while it is mapped ends in SIGBUS,
 *           as with any mapped file; an anonymous one is sealed against that.
 */
#ifndef ASHLAR_SHM_H
#define ASHLAR_SHM_H

#include <ashlar/passes.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct ashlar_shm ashlar_shm; /* this process's handle */
typedef uint64_t ashlar_off;          /* position of a block in its arena; 0 is null */

enum {
  ASHLAR_SHM_SCOPED = 1,     /* this process's blocks are freed when it closes the handle or dies */
  ASHLAR_SHM_READ_ONLY = 2,  /* look, but take nothing */
  ASHLAR_SHM_FIXED_SIZE = 4, /* create: all memory is taken at once, and never given back */
  ASHLAR_SHM_HUGE_PAGES = 8  /* advice to the kernel, which may not follow it */
};

/* --- arenas -------------------------------------------------------------------------------------
 * `max_bytes` is room for blocks, rounded up to 2 MiB; at most 8 TiB. The arena starts small, grows
 * in steps of 2 MiB, and gives empty ones back. Mode 0600. Null on error; create: EEXIST; open:
 * ENOENT. A process may have an arena open more than once; each handle counts as a process. */

/* As with shm_open(3), `name` is one word, a slash may stand before it. */
ashlar_shm *ashlar_shm_create(const char *name, size_t max_bytes, unsigned flags);
ashlar_shm *ashlar_shm_open(const char *name, unsigned flags);
/* In no file system; give its descriptor to others (fork, SCM_RIGHTS). */
ashlar_shm *ashlar_shm_create_anonymous(size_t max_bytes, unsigned flags);
/* In a regular file: it survives the processes and, written back like any file, the system. After
 * a power failure its content is what the disk happens to hold. */
ashlar_shm *ashlar_shm_create_file(const char *path, size_t max_bytes, unsigned flags);
ashlar_shm *ashlar_shm_open_file(const char *path, unsigned flags);
/* `fd` is copied; the caller keeps it. */
ashlar_shm *ashlar_shm_open_fd(int fd, unsigned flags);
/* -1 and EBADF if the program closed it behind our back. The handle's; do not close it. */
int ashlar_shm_fd(ashlar_shm *);

/* Unmaps the arena here; null is fine. Blocks stay, unless they are scoped. */
void ashlar_shm_close(ashlar_shm *);
/* Takes the name away; those who have the arena open keep it. -1 on error: ENOENT. */
int ashlar_shm_unlink(const char *name);
/* Calls visit() for the name of each arena in /dev/shm that this user may read, until it returns
 * something else than 0; returns that, or 0. */
int ashlar_shm_list(int (*visit)(const char *name, void *context), void *context);

/* --- arenas inside memory that others mapped ----------------------------------------------------
 * For frameworks that map their memory themselves: see <ashlar/boost_interprocess.hpp>. `memory` is
 * aligned to 4 KiB and lies in a writable MAP_SHARED mapping of a file. This library maps that file
 * once more: pointers from the handle mean nothing in `memory`, offsets count from it in bytes. The
 * handle is one for all threads and is not closed: that is done when the file is no longer mapped
 * at `memory`, and another such handle is made.
 * There are no handles to objects in it: ENOMEM.
 * Errors: EINVAL: it is no such memory; ENOENT: its file cannot be opened (it lost its name, and
 * this process lacks CAP_CHECKPOINT_RESTORE); EPROTO; EMFILE: 512 handles are open. */

/* The fewest bytes that an arena fits in. */
#define ASHLAR_SHM_LEAST_EMBEDDED ((size_t)4 << 20)
/* Makes an arena of at most `bytes` bytes at `memory`, all metadata included. What was there is
 * lost. Also EINVAL: too small; EOPNOTSUPP: a file system that cannot punch holes. */
ashlar_shm *ashlar_shm_embed(void *memory, size_t bytes);
/* The handle on the arena that was made at `memory`, here or in another process. A few nanoseconds,
 * after the first call. */
ashlar_shm *ashlar_shm_embedded(const void *memory);
/* Closes this process's handle on it, and those on memory that is not mapped any more: before the
 * file is cut off. Whoever has taken memory there and still has a handle would write behind its end;
 * see ashlar_shm_processes(). */
void ashlar_shm_unembed(const void *memory);

/* --- blocks -------------------------------------------------------------------------------------
 * Aligned to 16 bytes at least. Their content is not set. A request of 0 bytes gets the smallest
 * block. A thread that is killed leaks at most the one block that it was about to be given. Null on
 * error: ENOMEM, EDQUOT, EAGAIN, EACCES. */

void *ashlar_shm_malloc(ashlar_shm *, size_t bytes);
/* `alignment`: a power of two of at most 2 MiB; EINVAL: it is none. */
void *ashlar_shm_memalign(ashlar_shm *, size_t alignment, size_t bytes);
/* As realloc(3), but that 0 bytes free nothing: the block where it is or, its content copied, at a
 * new place; of a null pointer, a new one. On error the block stays as it was. EINVAL: no block in
 * use starts there. Blocks above 32 KiB grow in place where there is room. */
void *ashlar_shm_realloc(ashlar_shm *, void *, size_t bytes);
/* Any process's block; null is fine. What is no block in use is left alone: errno is EINVAL, and
 * it counts as a bad free. */
void ashlar_shm_free(ashlar_shm *, void *);
/* 0: it is no block in use. */
size_t ashlar_shm_usable_size(ashlar_shm *, const void *);

/* Any address in the arena, not only a block's. 0 and null for what lies outside. */
ashlar_off ashlar_shm_offset(ashlar_shm *, const void *);
void *ashlar_shm_pointer(ashlar_shm *, ashlar_off);

/* The segment's first byte, where this process has it mapped. */
void *ashlar_shm_base(ashlar_shm *);
/* The handle of this process whose arena has that address; null: none. A few nanoseconds. */
ashlar_shm *ashlar_shm_find(const void *);

/* Takes a block and stores its offset into `slot`, which lies in a block of the same arena and is
 * aligned to 8 bytes. If the caller is killed on the way, either the block is in `slot`, or it is
 * freed: nothing leaks. Others may read `slot` and use the block as soon as it is there; they change
 * it by ashlar_shm_exchange() alone. 0 on error; EINVAL: it is no such slot. */
ashlar_off ashlar_shm_malloc_into(ashlar_shm *, size_t bytes, ashlar_off *slot_in_arena);
/* Puts `desired` into such a slot, and returns what was there: by one exchange, which also tells a
 * recoverer that the block had been published. 0 is also an error, EINVAL or EACCES: only then is
 * errno set. */
ashlar_off ashlar_shm_exchange(ashlar_shm *, ashlar_off *slot_in_arena, ashlar_off desired);

/* --- hints and moves, for blocks whose positions the program owns -----------------------------------
 * As on the heap (<ashlar/compact.h>): go through all blocks, again and again, and move those with a
 * hint. Hints come from a snapshot that ranks slabs by what emptying them would give for what must be
 * moved; nothing moves into a slab that is to be emptied itself. The snapshot is this process's own,
 * and renewed every 100 ms or less often: 1 % of the time at most. One thread of one process should
 * do it: a move finds room in the lane of the calling thread, to which a snapshot adds what lanes
 * without a thread have left. Blocks above 32 KiB stay, and so do objects with handles.
 *
 * Readers in other processes are the program's to keep away: the old place is free, and may be
 * another's block, when a move returns. docs/compaction.md shows how. */

/* 0: leave it; 1 to 255: move it, the highest first. p: any address; 0 where no block is, and on a
 * handle that is read-only or null. A look-up, about 10 ns; in a batch one or two each. Keep errno. */
unsigned ashlar_shm_frag_hint(ashlar_shm *, const void *p);
void ashlar_shm_frag_hint_batch(ashlar_shm *, const void *const *blocks, size_t n, uint8_t *scores);
/* Copies the block at p to a better place, frees the old one and returns the new one, of the same
 * usable size and an alignment that is no smaller. Null: it is not worth it, or there is no better
 * place, and errno is as it was; or EINVAL: no block in use starts at p; EACCES. Whoever is killed in
 * it leaves the block where it was, and leaks one at most. */
void *ashlar_shm_frag_move(ashlar_shm *, void *p);
/* The same for a block whose offset is in `slot`, as with ashlar_shm_malloc_into(): the new offset is
 * stored there before the old place is free, so that `slot` leads to the block whenever the caller
 * is killed. The new offset; 0: as above. If another one changed `slot` meanwhile, nothing moves. */
ashlar_off ashlar_shm_frag_move_at(ashlar_shm *, ashlar_off *slot_in_arena);

/* --- objects that may be moved ------------------------------------------------------------------
 * A handle stands for an object; it is the same number in every process, and may be kept in the
 * arena. The object has an address while it is locked. While nobody has it locked it may be moved,
 * so that slabs that became sparse can be emptied and go back. A handle whose object was freed is
 * refused, also when its place is in use again.
 *
 * No call waits for another one, whoever was stopped or killed. A thread that is killed leaks at
 * most the one object that it was being given; what it had locked is unlocked by recovery.
 * Such objects are the arena's: they outlive their process, also a scoped one. Errors, besides:
 *   ESTALE  the handle's object was freed, or there never was one
 *   ENOLCK  this thread has 500 objects locked
 *   EBUSY   another thread is compacting */

/* An object of at most 32 KiB; EINVAL: more. Aligned to 16 bytes, and to any greater power of two up
 * to a page that `bytes` is a multiple of. Its content is not set. 0 on error. */
ashlar_handle ashlar_shm_handle_alloc(ashlar_shm *, size_t bytes);
/* From now on the handle is refused. Whoever has the object locked may go on until he unlocks it. 0
 * is fine. -1 on error. */
int ashlar_shm_handle_free(ashlar_shm *, ashlar_handle);
/* Where the object is in this process until this thread unlocks it as often as it locked it. A lock
 * keeps nobody else out. Null on error. With the unlock about 10 ns. */
void *ashlar_shm_handle_lock(ashlar_shm *, ashlar_handle);
/* -1 and EINVAL: this thread does not have it locked. */
int ashlar_shm_handle_unlock(ashlar_shm *, ashlar_handle);
/* Bytes of the object that can be used, at least as many as were asked for; 0: there is none. */
size_t ashlar_shm_handle_size(ashlar_shm *, ashlar_handle);

/* Moves objects out of sparse slabs and gives those back, for about `budget_us` microseconds and
 * `budget_bytes` bytes moved (UINT64_MAX, SIZE_MAX: no limit). Adds to *moved, which may be null.
 * Returns 1: there is more to do, call again, from any process; 0: the pass is complete. -1 on error.
 * One thread compacts at a time; all others go on. */
int ashlar_shm_compact(ashlar_shm *, uint64_t budget_us, size_t budget_bytes, ashlar_moved *moved);

/* --- passes by hand -------------------------------------------------------------------------------
 * For objects whose bytes are not all that has to be changed: with positions that other objects have
 * of it, or distances in it. As ashlar_pool_begin() and its like on the heap: the program copies what
 * is proposed, or not. The tag of a move is the object's handle.
 *
 * From begin to end nobody else compacts; locks, frees and allocations go on everywhere. An object
 * that another thread or process locks or frees meanwhile stays, or is gone, whatever the verdict is;
 * its copy was for nothing. So until the end the old place is the truth. A process that dies on the
 * way leaves each object at one place, and nothing else: the pass goes on with whoever comes next. */

/* Begins a pass, of so many microseconds and bytes to be copied at most (UINT64_MAX, SIZE_MAX: as
 * many as it takes), or goes on with the one that was begun last, and fills moves[0 .. n): 128 at
 * most, for each takes one of this thread's 500 locks. Returns how many. 0: nothing is worth it now;
 * the pass must be ended nevertheless. -1 on error; EBUSY also where this thread has not ended one. */
ptrdiff_t ashlar_shm_pass_begin(ashlar_shm *, uint64_t budget_us, size_t budget_bytes,
                                ashlar_move *moves, size_t n);
/* Not 0: the microseconds are over, or this thread has begun no pass. What was not copied yet is to be
 * skipped. */
int ashlar_shm_pass_should_stop(ashlar_shm *);
/* Ends the pass that the calling thread began, with the same moves and their verdicts. Adds to *moved,
 * which may be null. -1 and EINVAL: it has begun none, or these are not its moves; nothing is done. */
int ashlar_shm_pass_end(ashlar_shm *, const ashlar_move *moves, size_t n, ashlar_moved *moved);

/* --- notices, and the offer of a quiet moment ----------------------------------------------------- */

/* From now on notify(context, notice) is told what happens to the arena, through this handle; null:
 * nobody. notice->arena is the handle. There is no thread of ours: it runs in threads of this process
 * that call into this handle, when the call has done its work, with nothing of ours held. It may
 * allocate, free, compact and set another one; what it does is not told again. As it may run at the
 * end of a malloc, it must not wait for what the program holds around one.
 *
 * Passes: before and after each part that this process makes of one (ashlar_shm_compact, _quiescent;
 * _pass_begin and _pass_end). Memory is short while blocks take more than nine tenths of the arena,
 * or this process holds more than nine tenths of its quota (the excess is the larger of the two), and
 * when a call finds none; enough, once both are at eight tenths or below. Who takes pages looks, and
 * so do the ends of passes. Told at once, then twice a second at most. So what other processes took or
 * gave is told when this one comes by; they have handles, and functions, of their own.
 *
 * Thread-safe. A child of fork keeps the function. 0; -1 and EINVAL: null; EACCES: read-only. */
int ashlar_shm_set_notify(ashlar_shm *, ashlar_notify *notify, void *context);

/* This thread has nothing else to do for so many microseconds: recovers dead processes, takes back
 * what others freed in this thread's slabs, compacts, and looks at memory. Nobody has to be quiet for
 * it: objects with handles move only while nobody has them locked. Adds to *moved, which may be null.
 * Returns 1: there may be more to do; 0: there is not, or another pass is under way. -1 on error. */
int ashlar_shm_quiescent(ashlar_shm *, uint64_t budget_us, ashlar_moved *moved);

/* --- names --------------------------------------------------------------------------------------
 * A word that finds a block. Keys have 1 to 255 bytes; an arena has room for 1024 different ones,
 * and a key keeps its place when its value is 0. */

/* EINVAL: the key; ENOMEM: no room; EPERM: the key is new, and this handle's blocks, of which its
 * record would be one, are freed when it is closed. */
int ashlar_shm_root_set(ashlar_shm *, const char *key, ashlar_off);
/* 0: the key is unknown, or its value is 0. */
ashlar_off ashlar_shm_root_get(ashlar_shm *, const char *key);
/* Sets the value if it is `expected`, in one step. -1 and EEXIST: it is another one. */
int ashlar_shm_root_replace(ashlar_shm *, const char *key, ashlar_off expected, ashlar_off desired);
/* Calls visit() for each key with a value other than 0, until it returns something else than 0;
 * returns that, or 0. `key` is gone when visit() returns. */
int ashlar_shm_roots(ashlar_shm *, int (*visit)(const char *key, ashlar_off, void *context),
                     void *context);

/* --- when somebody dies ------------------------------------------------------------------------- */

/* Recovers what processes that died left unfinished. Returns how many there were; -1 on error:
 * EAGAIN, EACCES. Calls that need memory do the same by themselves before the arena grows. If nobody
 * died, 0.3 microseconds for each process. */
int ashlar_shm_recover(ashlar_shm *);
/* Whether the arena is sound: 0, or -1 with errno EUCLEAN and a sentence in `why` (at most
 * `why_len` bytes with the null byte). Reads only. Meant for a quiet arena: if others are at work,
 * what they are in the middle of may be reported. */
int ashlar_shm_check(ashlar_shm *, char *why, size_t why_len);

/* --- who holds what ----------------------------------------------------------------------------- */

/* The most bytes of slabs and large blocks that one process may hold; 0: no limit. For all
 * processes, from now on. Slabs of objects with handles count for the process that made them. Blocks
 * of a process that is gone count for whoever leases its lane next. -1 on error: EACCES. */
int ashlar_shm_set_quota(ashlar_shm *, size_t bytes);

typedef struct ashlar_shm_stats {
  size_t max_bytes;       /* room for blocks, at most */
  size_t mapped;          /* room for blocks that has memory now */
  size_t active;          /* slabs and large blocks */
  size_t allocated;       /* blocks in use */
  size_t free_pages;      /* bytes of pages in no block */
  size_t longest_run;     /* the longest run of free pages inside 2 MiB, in bytes */
  size_t metadata;        /* beside the room for blocks */
  size_t handle_active;   /* of active: slabs of objects with handles */
  size_t handle_allocated; /* of allocated: such objects */
  size_t small_blocks, large_blocks;
  size_t quota;
  uint64_t recoveries;    /* processes that died and were recovered */
  uint64_t bad_frees;     /* frees that were refused */
  unsigned processes, lanes;
} ashlar_shm_stats;
/* Read from the structures themselves; while others work, off by what they do meanwhile. */
int ashlar_shm_stat(ashlar_shm *, ashlar_shm_stats *);

typedef struct ashlar_shm_process {
  int pid;                /* as that process sees itself: another in another PID namespace */
  int alive;
  int scoped;
  unsigned lanes;
  size_t held;            /* bytes of slabs and large blocks */
  char name[16];
} ashlar_shm_process;
/* Calls visit() for each process that is attached, or died and was not recovered yet, until it
 * returns something else than 0; returns that, or 0. */
int ashlar_shm_processes(ashlar_shm *, int (*visit)(const ashlar_shm_process *, void *context),
                         void *context);

#ifdef __cplusplus
}
#endif

#endif
