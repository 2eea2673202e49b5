/* SPDX-License-Identifier: MIT
 *
 * Pools of objects that move, from C.
 */
#include <ashlar/ashlar.h>
#include <ashlar/compact.h>

#include "expect.h"

enum { kObjects = 100000 };

static char* objects[kObjects];

static ashlar_verdict relocate(void* context, void* from, void* to, size_t bytes, uint64_t tag) {
  EXPECT(context == objects, ==, 1);
  EXPECT(objects[tag] == from, ==, 1);
  memcpy(to, from, bytes);
  objects[tag] = to;
  return ASHLAR_COPIED;
}

static size_t size_of(size_t i) { return 16 + i % 300; }

static void thin_out(ashlar_pool* pool) {
  uint64_t seed = 1;
  for (size_t i = 0; i < kObjects; i++) {
    objects[i] = ashlar_pool_malloc(pool, size_of(i), i);
    fill(objects[i], 0, size_of(i), i);
  }
  for (size_t i = 0; i < kObjects; i++) {
    if (random_below(&seed, 4) == 0) continue;
    ashlar_pool_free(pool, objects[i]);
    objects[i] = NULL;
  }
}

static void are_whole(ashlar_pool* pool) {
  for (size_t i = 0; i < kObjects; i++) {
    if (objects[i] == NULL) continue;
    EXPECT(kept(objects[i], size_of(i), i), ==, size_of(i));
    EXPECT(ashlar_pool_tag(pool, objects[i]), ==, i);
    EXPECT(ashlar_pool_usable_size(pool, objects[i]), >=, size_of(i));
  }
}

int main(void) {
  it("a pool that was thinned out is compacted, pass by pass, and its memory is free");
  ashlar_pool* pool = ashlar_pool_create(relocate, objects);
  EXPECT(pool != NULL, ==, 1);
  thin_out(pool);
  ashlar_stats before, after;
  ashlar_get_stats(&before);
  ashlar_moved moved = {0};
  int passes = 0;
  while (ashlar_pool_compact(pool, 1000, SIZE_MAX, &moved) == 1) passes++;
  ashlar_get_stats(&after);
  EXPECT(passes > 1, ==, 1);
  EXPECT(moved.objects > kObjects / 8, ==, 1);
  EXPECT(moved.bytes < moved.freed, ==, 1);
  EXPECT(moved.skipped < kObjects / 100, ==, 1);
  EXPECT(before.active - after.active >= moved.freed / 2, ==, 1);
  are_whole(pool);

  it("a pinned object stays, and an empty budget moves nothing");
  char* const first = objects[0] ? objects[0] : ashlar_pool_malloc(pool, 100, 0);
  objects[0] = first;
  fill(first, 0, size_of(0), 0);
  EXPECT(ashlar_pool_pin(pool, first), ==, 0);
  for (size_t i = 1; i < kObjects; i++) {
    if (objects[i] == NULL || i % 3 == 0) continue;
    ashlar_pool_free(pool, objects[i]);
    objects[i] = NULL;
  }
  moved = (ashlar_moved){0};
  EXPECT(ashlar_pool_compact(pool, 0, SIZE_MAX, &moved), ==, 1);
  EXPECT(ashlar_pool_compact(pool, UINT64_MAX, 0, &moved), ==, 1);
  EXPECT(moved.objects, ==, 0);
  while (ashlar_pool_compact(pool, UINT64_MAX, SIZE_MAX, &moved) == 1) continue;
  EXPECT(moved.objects > 0, ==, 1);
  EXPECT(objects[0] == first, ==, 1);
  are_whole(pool);
  ashlar_pool_unpin(pool, first);
  ashlar_pool_destroy(pool);

  it("a pass by hand is the program's; a second one waits for its end");
  pool = ashlar_pool_create(NULL, NULL);
  thin_out(pool);
  static ashlar_move moves[1000];
  const ptrdiff_t n = ashlar_pool_begin(pool, UINT64_MAX, SIZE_MAX, moves, 1000);
  EXPECT(n, ==, 1000);
  EXPECT(ashlar_pool_should_stop(pool), ==, 0);
  EXPECT(ashlar_pool_begin(pool, UINT64_MAX, SIZE_MAX, moves, 1000), ==, -1);
  EXPECT(errno, ==, EBUSY);
  EXPECT(ashlar_pool_pin(pool, moves[0].from), ==, -1);
  EXPECT(errno, ==, EBUSY);
  for (ptrdiff_t i = 0; i < n; i += 2) {
    memcpy(moves[i].to, moves[i].from, moves[i].bytes);
    objects[moves[i].tag] = moves[i].to;
    moves[i].verdict = ASHLAR_COPIED;
  }
  moved = (ashlar_moved){0};
  ashlar_pool_end(pool, moves, (size_t)n, &moved);
  EXPECT(moved.objects, ==, 500);
  EXPECT(moved.skipped, ==, 500);
  are_whole(pool);
  EXPECT(ashlar_pool_compact(pool, 1, 1, &moved), ==, -1);
  EXPECT(errno, ==, EINVAL);
  ashlar_pool_free(pool, NULL);
  EXPECT(ashlar_pool_usable_size(pool, NULL), ==, 0);
  EXPECT(ashlar_pool_malloc(pool, SIZE_MAX, 0) == NULL, ==, 1);
  ashlar_pool_destroy(pool);
  return verdict();
}
