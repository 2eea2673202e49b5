// SPDX-License-Identifier: MIT
// A library preloaded before the allocator that wraps it, as profilers and leak checkers do: it
// looks the next malloc up at its first call, while `dlsym` may itself call calloc.
#include <dlfcn.h>
#include <stddef.h>

static void* (*next_malloc)(size_t);
static void* (*next_calloc)(size_t, size_t);
static void* (*next_realloc)(void*, size_t);
static void (*next_free)(void*);
static _Thread_local volatile int
    looking;  // volatile: the compiler believes that dlsym never calls back
long interposed_calls;

static void look(void) {
  if (next_free || looking) return;
  looking = 1;
  next_malloc = (void* (*)(size_t))dlsym(RTLD_NEXT, "malloc");
  next_calloc = (void* (*)(size_t, size_t))dlsym(RTLD_NEXT, "calloc");
  next_realloc = (void* (*)(void*, size_t))dlsym(RTLD_NEXT, "realloc");
  dlsym(RTLD_NEXT, "no such symbol, so that dlsym has to write down an error");
  next_free = (void (*)(void*))dlsym(RTLD_NEXT, "free");
  looking = 0;
}

void* malloc(size_t size) {
  look();
  __atomic_add_fetch(&interposed_calls, 1, __ATOMIC_RELAXED);
  return next_malloc ? next_malloc(size) : NULL;
}

void* calloc(size_t count, size_t size) {
  look();
  __atomic_add_fetch(&interposed_calls, 1, __ATOMIC_RELAXED);
  return next_calloc ? next_calloc(count, size) : NULL;
}

void* realloc(void* block, size_t size) {
  look();
  __atomic_add_fetch(&interposed_calls, 1, __ATOMIC_RELAXED);
  return next_realloc ? next_realloc(block, size) : NULL;
}

void free(void* block) {
  look();
  __atomic_add_fetch(&interposed_calls, 1, __ATOMIC_RELAXED);
  if (next_free) next_free(block);
}
