/* SPDX-License-Identifier: MIT
 *
 * A program that knows all its pointers follows the hints, in C.
 */
#include <ashlar/ashlar.h>
#include <malloc.h>

#include "expect.h"

enum { kObjects = 200000, kBatch = 1000, kRounds = 20 };

static void* objects[kObjects];
static size_t sizes[kObjects];
static size_t count;

static double fragmentation(void) {
  ashlar_stats stats;
  ashlar_get_stats(&stats);
  return (double)stats.active / (double)stats.allocated;
}

/* Of sizes from 16 to 1000, three of four are freed. */
static void make_gaps(void) {
  uint64_t seed = 1;
  static void* all[kObjects];
  for (size_t i = 0; i < kObjects; i++) all[i] = memset(malloc(16 + i * 7919 % 985), 1, 16);
  for (size_t i = 0; i < kObjects; i++) {
    if (random_below(&seed, 4) != 0) {
      free(all[i]);
      continue;
    }
    sizes[count] = 16 + i * 7919 % 985;
    fill(all[i], 0, sizes[count], count);
    objects[count++] = all[i];
  }
}

static size_t go_round(void) {
  static uint8_t scores[kBatch];
  size_t moved = 0;
  for (size_t first = 0; first < count; first += kBatch) {
    const size_t n = count - first < kBatch ? count - first : kBatch;
    ashlar_frag_hint_batch((const void* const*)objects + first, n, scores);
    for (size_t i = 0; i < n; i++) {
      if (scores[i] == 0) continue;
      const size_t usable = malloc_usable_size(objects[first + i]);
      void* const to = ashlar_frag_move(objects[first + i]);
      if (to == NULL) continue;
      EXPECT(malloc_usable_size(to), ==, usable);
      objects[first + i] = to;
      moved += usable;
    }
  }
  return moved;
}

enum { kMoves = 10 };
static ashlar_move moves[kMoves];
static ashlar_moved moved_in_all;

static void end_pass(void* pool) {
  EXPECT(ashlar_pool_pin(pool, moves[0].from), ==, -1); /* it is on its way */
  EXPECT(errno, ==, EBUSY);
  for (int i = 0; i < kMoves; i++) {
    memcpy(moves[i].to, moves[i].from, moves[i].bytes);
    moves[i].verdict = ASHLAR_COPIED;
  }
  ashlar_pool_end(pool, moves, kMoves, &moved_in_all);
  EXPECT(moved_in_all.objects, ==, kMoves);
  EXPECT(ashlar_pool_pin(pool, moves[0].to), ==, 0);
}

/* In between the thread has been in a pass of another pool. */
static void begin_pass_and_fork(void) {
  ashlar_pool* const pool = ashlar_pool_create(NULL, NULL);
  ashlar_pool* const other = ashlar_pool_create(NULL, NULL);
  static void* all[5000];
  for (size_t i = 0; i < 5000; i++) all[i] = ashlar_pool_malloc(pool, 100, i);
  for (size_t i = 0; i < 5000; i++) {
    if (i % 10 != 0) ashlar_pool_free(pool, all[i]);
  }
  EXPECT(ashlar_pool_begin(pool, UINT64_MAX, SIZE_MAX, moves, kMoves), ==, kMoves);
  EXPECT(ashlar_pool_begin(other, UINT64_MAX, SIZE_MAX, NULL, 0), ==, 0);
  ashlar_pool_end(other, NULL, 0, &moved_in_all);
  EXPECT(in_child(end_pass, pool, 10), ==, 0);
  end_pass(pool);
  ashlar_pool_destroy(other);
  ashlar_pool_destroy(pool);
}

int main(void) {
  it("a pass goes on in a child whose thread began it");
  begin_pass_and_fork();

  it("following the hints takes fragmentation away, for fewer bytes moved than freed");
  make_gaps();
  const double before = fragmentation();
  ashlar_stats stats;
  ashlar_get_stats(&stats);
  const uint64_t active_before = stats.active;
  EXPECT(before >= 1.4, ==, 1);
  size_t moved = 0;
  for (int i = 0; i < kRounds; i++) {
    moved += go_round();
    usleep(110 * 1000); /* the next round finds a new plan */
  }
  ashlar_get_stats(&stats);
  EXPECT(fragmentation() < 1.1, ==, 1);
  EXPECT(moved > 0, ==, 1);
  EXPECT(moved < active_before - stats.active, ==, 1);

  it("objects keep their contents on the way");
  for (size_t i = 0; i < count; i++) EXPECT(kept(objects[i], sizes[i], i), ==, sizes[i]);

  it("what is not an object of malloc has no hint and stays");
  int here = 0;
  ashlar_heap* const heap = ashlar_heap_create(NULL);
  void* const strangers[] = {NULL, &here, (void*)~(uintptr_t)0, ashlar_heap_malloc(heap, 100),
                             malloc(MIB)};
  for (size_t i = 0; i < sizeof strangers / sizeof *strangers; i++) {
    EXPECT(ashlar_frag_hint(strangers[i]), ==, 0);
    EXPECT(ashlar_frag_move(strangers[i]) == NULL, ==, 1);
  }

  it("a batch of none is nothing, and errno is kept");
  errno = 77;
  ashlar_frag_hint_batch(NULL, 0, NULL);
  ashlar_frag_move(NULL);
  EXPECT(errno, ==, 77);
  return verdict();
}
