// SPDX-License-Identifier: MIT
// The library loaded by dlopen instead of preload, beside the C library's malloc: what plug-ins do,
// knowingly or not.
//
//   dlopened LIBRARY
#include "expect.h"

#include <pthread.h>

static void* (*their_malloc)(size_t);
static void* (*their_calloc)(size_t, size_t);
static void* (*their_realloc)(void*, size_t);
static void (*their_free)(void*);

static void* churn(void* seed) {
  uint64_t random = (uintptr_t)seed + 1;
  unsigned char* blocks[200] = {0};
  size_t sizes[200] = {0};
  for (int i = 0; i < 100000; i++) {
    size_t slot = random_below(&random, 200),
           size = random_below(&random, i % 100 ? 600 : 200 * KIB) + 1;
    EXPECT(kept(blocks[slot], sizes[slot], slot), ==, sizes[slot]);
    if (i % 3)
      their_free(blocks[slot]),
          blocks[slot] = i % 3 == 1 ? their_malloc(size) : their_calloc(size, 1);
    else
      blocks[slot] = their_realloc(blocks[slot], size);
    fill(blocks[slot], 0, sizes[slot] = size, slot);
  }
  for (int i = 0; i < 200; i++) their_free(blocks[i]);
  return NULL;
}

static void four_threads(void) {
  pthread_t threads[4];
  for (size_t i = 0; i < 4; i++) pthread_create(&threads[i], NULL, churn, (void*)i);
  for (size_t i = 0; i < 4; i++) pthread_join(threads[i], NULL);
}

static void child(void* unused) { churn(unused), four_threads(); }

static pthread_mutex_t unloading = PTHREAD_MUTEX_INITIALIZER;

static void* outlive_the_handle(void* unused) {
  void* block = their_malloc(100);
  pthread_mutex_lock(&unloading);
  pthread_mutex_unlock(&unloading);
  their_free(block);
  return unused;
}

int main(int argc, char** argv) {
  must_end_within(60);
  void* library = argc > 1 ? dlopen(argv[1], RTLD_NOW | RTLD_LOCAL) : NULL;
  it("dlopen loads the library, so its thread-local memory fits in what is left over");
  if (!library) say(dlerror()), say("\n");
  EXPECT(library != NULL, ==, 1);
  if (!library) return verdict();
  their_malloc = (void* (*)(size_t))dlsym(library, "malloc");
  their_calloc = (void* (*)(size_t, size_t))dlsym(library, "calloc");
  their_realloc = (void* (*)(void*, size_t))dlsym(library, "realloc");
  their_free = (void (*)(void*))dlsym(library, "free");
  it("the malloc found is not the one of the C library");
  EXPECT(their_malloc != &malloc, ==, 1);
  it("blocks from a library loaded late keep their contents, in any thread and in a child");
  churn(NULL);
  four_threads();
  EXPECT(in_child(child, NULL, 20), ==, 0);
  it("the library stays when its handle is closed, as threads still hold its memory");
  pthread_t thread;
  pthread_mutex_lock(&unloading);
  pthread_create(&thread, NULL, outlive_the_handle, NULL);
  usleep(10000);
  dlclose(library);
  pthread_mutex_unlock(&unloading);
  pthread_join(thread, NULL);
  churn(NULL);
  return verdict();
}
