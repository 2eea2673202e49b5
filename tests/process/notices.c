/* SPDX-License-Identifier: MIT
 *
 * Notices and quiet moments, from C. With a number, for pressure.py: holds that many MiB until it
 * is told that they are too many, gives them back, and waits to be told that it was enough.
 */
#include <ashlar/ashlar.h>

#include "expect.h"

enum { kObjects = 20000 };

static ashlar_notice told[4]; /* the last, by event */
static int calls[4];          /* atomic: our thread → the program's */

static void note(void* context, const ashlar_notice* notice) {
  EXPECT(context == told, ==, 1);
  free(malloc(100));
  told[notice->event] = *notice;
  __atomic_add_fetch(&calls[notice->event], 1, __ATOMIC_SEQ_CST);
}

static int count(ashlar_event event) { return __atomic_load_n(&calls[event], __ATOMIC_SEQ_CST); }

static void hold(size_t mib) {
  char* const block = malloc(mib * MIB);
  memset(block, 1, mib * MIB);
  for (int i = 0; i < 100 && count(ASHLAR_MEMORY_SHORT) == 0; i++) usleep(100000);
  printf("short %d\n", told[ASHLAR_MEMORY_SHORT].excess_bytes != 0);
  free(block);
  for (int i = 0; i < 100 && count(ASHLAR_MEMORY_ENOUGH) == 0; i++) usleep(100000);
  printf("enough %d\n", count(ASHLAR_MEMORY_ENOUGH));
}

static void be_denied(void) {
  EXPECT(ashlar_set_notify(note, told), ==, -1);
  EXPECT(errno, ==, ENOTSUP);
  ashlar_pool* const pool = ashlar_pool_create_for_handles();
  ashlar_moved moved = {0};
  ashlar_pool_compact(pool, 1000, SIZE_MAX, &moved);
  EXPECT(count(ASHLAR_PASS_ENDED), ==, 1);
}

int main(int argc, char** argv) {
  if (argc > 1 && strcmp(argv[1], "denied") == 0) {
    be_denied();
    return verdict();
  }
  it("notices can be had");
  EXPECT(ashlar_set_notify(note, told), ==, 0);
  if (argc > 1) {
    hold(strtoul(argv[1], NULL, 10));
    return verdict();
  }

  it("a quiet moment compacts pools that the caller does not know, and says when it is over");
  ashlar_pool* const pool = ashlar_pool_create_for_handles();
  static ashlar_handle handles[kObjects];
  for (int i = 0; i < kObjects; i++) handles[i] = ashlar_pool_handle_alloc(pool, 100);
  for (int i = 0; i < kObjects; i++) {
    if (i % 8 != 0) ashlar_pool_handle_free(pool, handles[i]);
  }
  ashlar_heap_stats before, after;
  ashlar_pool_get_stats(pool, &before);
  ashlar_moved moved = {0};
  int moments = 0;
  while (ashlar_quiescent(200, &moved) == 1 && ++moments < 10000) continue;
  ashlar_pool_get_stats(pool, &after);
  EXPECT(moments < 10000, ==, 1);
  EXPECT(after.allocated, ==, before.allocated);
  EXPECT(after.active * 4 < before.active, ==, 1);
  EXPECT(moved.objects > kObjects / 20, ==, 1);
  EXPECT(count(ASHLAR_PASS_BEGINS), ==, moments + 1);
  EXPECT(count(ASHLAR_PASS_ENDED), ==, moments + 1);
  EXPECT(told[ASHLAR_PASS_ENDED].pool == pool, ==, 1);

  it("nobody is told any more once that was said");
  EXPECT(ashlar_set_notify(NULL, NULL), ==, 0);
  EXPECT(ashlar_quiescent(1000000, &moved), ==, 0);
  EXPECT(count(ASHLAR_PASS_ENDED), ==, moments + 1);
  ashlar_pool_destroy(pool);
  EXPECT(ashlar_quiescent(1000000, &moved), ==, 0);

  it("a program that allows no thread of ours is told of passes alone");
  const pid_t child = fork();
  if (child == 0) {
    setenv("ASHLAR_CONF", "background:never", 1);
    execl("/proc/self/exe", argv[0], "denied", (char*)NULL);
  }
  EXPECT(outcome(child), ==, 0);
  return verdict();
}
