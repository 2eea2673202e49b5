// SPDX-License-Identifier: MIT
// Runs with LD_PRELOAD="libinterposer.so libashlar.so": calls pass through both.
#include "expect.h"

#include <malloc.h>
#include <pthread.h>

static void* churn(void* argument) {
  uint64_t random = (uintptr_t)argument + 1;
  void* blocks[100] = {0};
  for (int i = 0; i < 100000; i++) {
    size_t slot = random_below(&random, 100);
    if (i % 3 == 0)
      blocks[slot] = realloc(blocks[slot], random_below(&random, 3000) + 1);
    else
      free(blocks[slot]),
          blocks[slot] = i % 3 == 1 ? calloc(1, slot + 1) : aligned_alloc(64, slot + 1);
  }
  for (int i = 0; i < 100; i++) free(blocks[i]);
  return NULL;
}

int main(void) {
  long* calls = (long*)dlsym(RTLD_DEFAULT, "interposed_calls");
  it("the interposer sits before the allocator");
  EXPECT(calls != NULL, ==, 1);
  long before = calls ? *calls : 0;
  pthread_t threads[4];
  for (size_t i = 0; i < 4; i++) pthread_create(&threads[i], NULL, churn, (void*)i);
  for (size_t i = 0; i < 4; i++) pthread_join(threads[i], NULL);
  EXPECT(calls ? *calls - before : 0, >, 400000);
  it("reallocarray goes through the interposer's realloc, as the C library's does");
  before = calls ? *calls : 0;
  void* array = reallocarray(NULL, 10, 10);
  EXPECT(calls ? *calls - before : 0, ==, 1);
  free(array);
  it("what the next malloc gave is what malloc_usable_size and the aligned forms know");
  void* block = malloc(100);
  EXPECT(malloc_usable_size(block), >=, 100);
  free(block);
  return verdict();
}
