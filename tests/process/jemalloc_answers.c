/* SPDX-License-Identifier: MIT
 *
 * Asks whichever library is preloaded what both jemalloc and Ashlar know, and prints the answers.
 * jemalloc_answers.py runs it on both. What may differ (an amount, a class's size) is not printed,
 * but whether it is as it must be.
 */
#include <stdbool.h>
#include <stdlib.h>

#include "expect.h"

static int (*control)(const char*, void*, size_t*, void*, size_t);
static int (*name_to_mib)(const char*, size_t*, size_t*);
static int (*control_by_mib)(const size_t*, size_t, void*, size_t*, void*, size_t);
static void* (*allocate)(size_t, int);
static void (*give)(void*, int);
static size_t (*size_of)(const void*, int);
static size_t (*size_for)(size_t, int);

enum { kNoCache = 1 << 8, kZero = 0x40 };

struct utilization {
  size_t free_slots, slots, bytes;
};
struct verbose {
  void* current;
  struct utilization slab;
  size_t free_slots, slots;
};

static void names(void) {
  static const struct {
    const char* name;
    size_t bytes;
  } known[] = {
      {"version", sizeof(char*)},
      {"epoch", 8},
      {"background_thread", 1},
      {"max_background_threads", sizeof(size_t)},
      {"config.stats", 1},
      {"config.debug", 1},
      {"opt.narenas", sizeof(unsigned)},
      {"opt.tcache", 1},
      {"opt.dirty_decay_ms", sizeof(ssize_t)},
      {"opt.abort_conf", 1},
      {"opt.percpu_arena", sizeof(char*)},
      {"opt.dss", sizeof(char*)},
      {"opt.metadata_thp", sizeof(char*)},
      {"opt.junk", sizeof(char*)},
      {"opt.zero", 1},
      {"opt.thp", sizeof(char*)},
      {"arenas.narenas", sizeof(unsigned)},
      {"arenas.page", sizeof(size_t)},
      {"arenas.quantum", sizeof(size_t)},
      {"arenas.nbins", sizeof(unsigned)},
      {"arenas.bin.3.size", sizeof(size_t)},
      {"arenas.bin.3.nregs", sizeof(uint32_t)},
      {"arenas.bin.3.slab_size", sizeof(size_t)},
      {"arenas.bin.999.size", 0},
      {"stats.allocated", sizeof(size_t)},
      {"stats.active", sizeof(size_t)},
      {"stats.resident", sizeof(size_t)},
      {"stats.mapped", sizeof(size_t)},
      {"stats.retained", sizeof(size_t)},
      {"stats.metadata", sizeof(size_t)},
      {"stats.arenas.4096.pmuzzy", sizeof(size_t)},
      {"stats.arenas.4096.pdirty", sizeof(size_t)},
      {"stats.arenas.4096.bins.3.curregs", sizeof(size_t)},
      {"stats.arenas.4096.bins.3.curslabs", sizeof(size_t)},
      {"stats.arenas.4096.bins.3.nonfull_slabs", sizeof(size_t)},
      {"thread.tcache.enabled", 1},
      {"no.such.name", 0},
  };
  for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
    char value[16];
    size_t right = known[i].bytes, wrong = 3, mib[8], length = 8;
    printf("%s: read %d", known[i].name, control(known[i].name, value, &right, NULL, 0));
    printf(", as 3 bytes %d", control(known[i].name, value, &wrong, NULL, 0));
    printf(" of %zu", wrong);
    const int found = name_to_mib(known[i].name, mib, &length);
    printf(", mib %d", found);
    if (found == 0) {
      right = known[i].bytes;
      printf(" of %zu, read %d", length, control_by_mib(mib, length, value, &right, NULL, 0));
    }
    puts("");
  }
  size_t value = 0;
  printf("write stats.allocated: %d\n",
         control("stats.allocated", NULL, NULL, &value, sizeof value));
  printf("write arenas.page: %d\n", control("arenas.page", NULL, NULL, &value, sizeof value));
  printf("act: %d %d\n", control("thread.tcache.flush", NULL, NULL, NULL, 0),
         control("arena.0.purge", NULL, NULL, NULL, 0));
  printf("read what acts: %d\n", control("thread.tcache.flush", &value, &(size_t){8}, NULL, 0));
  unsigned arenas = 0;
  control("arenas.narenas", &arenas, &(size_t){sizeof arenas}, NULL, 0);
  char name[64];
  snprintf(name, sizeof name, "arena.%u.purge", arenas);
  printf("purge all: %d\n", control(name, NULL, NULL, NULL, 0));
  snprintf(name, sizeof name, "arena.%u.purge", arenas + 1);
  printf("purge one too many: %d\n", control(name, NULL, NULL, NULL, 0));
}

static void utilization(void) {
  void* objects[] = {allocate(100, kNoCache), allocate(1 << 20, kNoCache)};
  struct utilization answers[2];
  size_t bytes = sizeof answers;
  const char* const query = "experimental.utilization.batch_query";
  printf("batch: %d\n", control(query, answers, &bytes, objects, sizeof objects));
  printf("small: slots %d, room %d, whole pages %d\n", answers[0].slots > 1,
         answers[0].free_slots < answers[0].slots, answers[0].bytes % 4096 == 0);
  printf("small: in its slab %d\n", answers[0].slots * size_of(objects[0], 0) <= answers[0].bytes);
  printf("large: slots %zu, room %zu, large enough %d\n", answers[1].slots, answers[1].free_slots,
         answers[1].bytes >= 1 << 20);
  const size_t before = answers[0].free_slots;
  void* const more[] = {allocate(100, kNoCache), allocate(100, kNoCache)};
  bytes = sizeof answers[0];
  control(query, answers, &bytes, objects, sizeof objects[0]);
  printf("two more of a fresh slab: %zu\n", before - answers[0].free_slots);
  for (int i = 0; i < 2; i++) give(more[i], kNoCache);
  bytes = sizeof answers[0];
  control(query, answers, &bytes, objects, sizeof objects[0]);
  printf("and back: %zu\n", before - answers[0].free_slots);

  bytes = sizeof answers - 1;
  printf("batch, wrong room: %d\n", control(query, answers, &bytes, objects, sizeof objects));
  bytes = sizeof answers;
  printf("batch, wrong input: %d\n", control(query, answers, &bytes, objects, sizeof objects - 1));
  printf("batch, no input: %d\n", control(query, answers, &bytes, NULL, 0));
  printf("batch, no output: %d\n", control(query, NULL, NULL, objects, sizeof objects));

  struct verbose verbose;
  bytes = sizeof verbose;
  const char* const one = "experimental.utilization.query";
  printf("query: %d\n", control(one, &verbose, &bytes, objects, sizeof objects[0]));
  printf("same slab: %d, class has as many %d\n", verbose.slab.slots == answers[0].slots,
         verbose.slots >= verbose.free_slots);
  bytes = sizeof verbose;
  printf("query of large: %d", control(one, &verbose, &bytes, objects + 1, sizeof objects[0]));
  printf(", %zu slots, %zu in its class\n", verbose.slab.slots, verbose.slots);
  bytes = 8;
  printf("query, wrong room: %d\n", control(one, &verbose, &bytes, objects, sizeof objects[0]));
  for (int i = 0; i < 2; i++) give(objects[i], kNoCache);
}

static void objects(void) {
  for (size_t bytes = 1; bytes < 1 << 20; bytes = bytes * 5 / 2 + 1) {
    for (int power = 3; power < 17; power += 3) {
      char* const p = allocate(bytes, power | kZero | kNoCache);
      bool zero = true;
      for (size_t i = 0; i < bytes; i++) zero &= p[i] == 0;
      printf("%zu at 2^%d: aligned %d, zero %d, size %d, as said %d\n", bytes, power,
             (uintptr_t)p % ((size_t)1 << power) == 0, zero, size_of(p, power) >= bytes,
             size_of(p, power) == size_for(bytes, power));
      give(p, kNoCache);
    }
  }
  printf("too large: %zu\n", size_for(SIZE_MAX / 2 + 1, 0));
}

int main(void) {
  *(void**)&control = dlsym(RTLD_DEFAULT, "mallctl");
  *(void**)&name_to_mib = dlsym(RTLD_DEFAULT, "mallctlnametomib");
  *(void**)&control_by_mib = dlsym(RTLD_DEFAULT, "mallctlbymib");
  *(void**)&allocate = dlsym(RTLD_DEFAULT, "mallocx");
  *(void**)&give = dlsym(RTLD_DEFAULT, "dallocx");
  *(void**)&size_of = dlsym(RTLD_DEFAULT, "sallocx");
  *(void**)&size_for = dlsym(RTLD_DEFAULT, "nallocx");
  if (control == NULL || size_for == NULL) return skip("no jemalloc interface is preloaded");
  names();
  utilization();
  objects();
  return 0;
}
