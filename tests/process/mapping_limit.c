// SPDX-License-Identifier: MIT
// A process that has as many mappings as it may have: the kernel refuses to cut one in two, so what
// is to be unmapped or mapped anew stays as it is.
#include <sys/mman.h>

#include "expect.h"

// Leaves room for so few more mappings, in what the kernel counts. False: there may be too many.
static int use_up_mappings(int left) {
  enum { most = 1 << 17 };
  size_t const pages = 2 * most + 2;
  int singles = 0;
  static void* single[64];
  char* const many =
      mmap(NULL, pages * 4 * KIB, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  size_t page = 0;
  while (page < pages && mprotect(many + page * 4 * KIB, 4 * KIB, PROT_READ) == 0) page += 2;
  if (many == MAP_FAILED || page >= pages) return 0;
  munmap(many + (page - 32) * 4 * KIB, (pages - page + 32) * 4 * KIB);
  // Shared ones never merge.
  for (; singles < 64; singles++) {
    single[singles] = mmap(NULL, 4 * KIB, PROT_READ, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (single[singles] == MAP_FAILED) break;
  }
  if (singles == 64 || singles < left) return 0;
  while (left-- > 0) munmap(single[--singles], 4 * KIB);
  return 1;
}

enum { blocks = 32 };

static void lose_nothing(void* unused) {
  static void* block[blocks];
  int had = 0;
  (void)unused;
  for (int i = 0; i < blocks; i++) memset(block[i] = malloc(2 * MIB), 1, 2 * MIB);
  for (int i = 0; i < blocks; i += 2) free(block[i]);
  if (!use_up_mappings(0)) _exit(77);
  EXPECT(malloc(1024 * MIB), ==, NULL);
  for (int i = 0; i < blocks; i += 2) had += (block[i] = malloc(2 * MIB - 4 * KIB)) != NULL;
  EXPECT(had, >=, blocks / 2 - 2);
}

static void find_zeros(void* left) {
  char* const before = malloc(64 * MIB);
  char* const small = malloc(16 * MIB);
  char* const behind = malloc(4 * MIB);
  int dirty = 0;
  memset(before, 1, 64 * MIB);
  memset(small, 2, 16 * MIB);
  memset(behind, 3, 4 * MIB);
  free(before);
  if (!use_up_mappings(*(int*)left)) _exit(77);
  char* const large = realloc(small, 32 * MIB);
  if (large == NULL) return;
  EXPECT(large[0], ==, 2);
  EXPECT(large[16 * MIB - 1], ==, 2);
  for (int i = 0; i < 32; i++) {
    char* const zeros = calloc(1, 4 * MIB);
    for (size_t at = 0; zeros != NULL && at < 4 * MIB; at += 4 * KIB) dirty += zeros[at] != 0;
  }
  EXPECT(dirty, ==, 0);
}

int main(void) {
  it("free memory that cannot be unmapped for a block that is too large serves smaller ones");
  int const outcome_of_first = in_child(lose_nothing, NULL, 60);
  if (outcome_of_first == 77) return skip("a process may have too many mappings here");
  EXPECT(outcome_of_first, ==, 0);
  it("calloc finds zeros where a block was that realloc moved");
  for (int left = 0; left <= 4; left++) EXPECT(in_child(find_zeros, &left, 60), ==, 0);
  return verdict();
}
