// SPDX-License-Identifier: MIT
// Stacks of coroutines that lie in a row right below the first thread's thread-local variables, as
// the kernel likes to put mappings; one of them goes before the one below it.
#include <sys/mman.h>
#include <ucontext.h>

#include "expect.h"

enum { stack_kib = 64, page_kib = 4, pages_to_try = 16 };

static __thread int variable;
static ucontext_t first_thread, coroutine;

static void allocate_and_yield(void) {
  for (;;) {
    for (int i = 0; i < 100; i++) {
      char* volatile block = malloc(4000);
      free(block);
    }
    swapcontext(&coroutine, &first_thread);
  }
}

static void start_on(char* stack) {
  getcontext(&coroutine);
  coroutine.uc_stack.ss_sp = stack;
  coroutine.uc_stack.ss_size = stack_kib * KIB;
  coroutine.uc_link = &first_thread;
  makecontext(&coroutine, allocate_and_yield, 0);
  swapcontext(&first_thread, &coroutine);
}

static char* map_at(uintptr_t address) {
  void* const p = mmap((void*)address, stack_kib * KIB, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
  return p == MAP_FAILED ? NULL : p;
}

int main(void) {
  uintptr_t const above = (uintptr_t)&variable & ~(uintptr_t)(page_kib * KIB - 1);
  char *upper = NULL, *lower = NULL;
  for (size_t page = 0; page < pages_to_try && !upper; page++)
    upper = map_at(above - (stack_kib + page * page_kib) * KIB);
  if (upper) lower = map_at((uintptr_t)upper - stack_kib * KIB);
  if (!lower) return skip("something else lies below the thread-local variables");
  must_end_within(30);
  it("a coroutine goes on when another, which had its stack above, is gone");
  start_on(upper);
  start_on(lower);
  munmap(upper, stack_kib * KIB);
  EXPECT(swapcontext(&first_thread, &coroutine), ==, 0);
  return verdict();
}
