// SPDX-License-Identifier: MIT
// Every entry point of the malloc family, and the rules of the field for each.
#include "expect.h"

#include <malloc.h>

typedef void* (*Getter)(size_t);

static void* by_malloc(size_t n) { return malloc(n); }
static void* by_calloc(size_t n) { return calloc(1, n); }
static void* by_calloc_bytes(size_t n) { return calloc(n, 1); }
static void* by_realloc(size_t n) { return realloc(NULL, n); }
static void* by_reallocarray(size_t n) { return reallocarray(NULL, n, 1); }
static void* by_aligned_alloc(size_t n) { return aligned_alloc(64, n); }
static void* by_memalign(size_t n) { return memalign(256, n); }
static void* by_valloc(size_t n) { return valloc(n); }
static void* by_pvalloc(size_t n) { return pvalloc(n); }
static void* by_posix_memalign(size_t n) {
  void* block = NULL;
  int code = posix_memalign(&block, 32, n);
  if (code) errno = code;
  return block;
}

static const struct {
  const char* name;
  Getter get;
  size_t alignment;
} getters[] = {
    {"malloc", by_malloc, 16},
    {"calloc", by_calloc, 16},
    {"calloc bytes", by_calloc_bytes, 16},
    {"realloc", by_realloc, 16},
    {"reallocarray", by_reallocarray, 16},
    {"aligned_alloc", by_aligned_alloc, 64},
    {"memalign", by_memalign, 256},
    {"valloc", by_valloc, 4096},
    {"pvalloc", by_pvalloc, 4096},
    {"posix_memalign", by_posix_memalign, 32},
};
enum { getter_count = sizeof getters / sizeof *getters };

static const size_t large_sizes[] = {32768,   32769,          65536,         100000,
                                     1 << 20, (2 << 20) - 16, (2 << 20) + 1, 40 << 20};
enum { large_count = sizeof large_sizes / sizeof *large_sizes };

static void every_door_is_ours(void) {
  static const char* const doors[] = {"malloc",
                                      "free",
                                      "calloc",
                                      "realloc",
                                      "reallocarray",
                                      "posix_memalign",
                                      "aligned_alloc",
                                      "memalign",
                                      "valloc",
                                      "pvalloc",
                                      "malloc_usable_size",
                                      "free_sized",
                                      "free_aligned_sized",
                                      "malloc_trim",
                                      "mallopt",
                                      "mallinfo",
                                      "mallinfo2",
                                      "malloc_info",
                                      "malloc_stats",
                                      "cfree",
                                      "__libc_malloc",
                                      "__libc_free",
                                      "__libc_calloc",
                                      "__libc_realloc",
                                      "__libc_memalign",
                                      "__libc_valloc",
                                      "__libc_pvalloc",
                                      "__posix_memalign"};
  if (!is_preloaded()) return;
  Dl_info home, other;
  dladdr(dlsym(RTLD_DEFAULT, "malloc"), &home);
  for (size_t i = 0; i < sizeof doors / sizeof *doors; i++) {
    void* door = dlsym(RTLD_DEFAULT, doors[i]);
    it(doors[i]);
    EXPECT(door && dladdr(door, &other) && other.dli_fbase == home.dli_fbase, ==, 1);
  }
}

static void alignment_and_size(void) {
  for (int g = 0; g < getter_count; g++)
    for (size_t i = 0; i <= 5000 + large_count; i++) {
      size_t size = i <= 5000 ? i : large_sizes[i - 5001];
      char* block = getters[g].get(size);
      it(getters[g].name);
      EXPECT(block != NULL, ==, 1);
      EXPECT((uintptr_t)block % getters[g].alignment, ==, 0);
      EXPECT(malloc_usable_size(block), >=, size);
      memset(block, 0x5A, size);
      free(block);
    }
  it("pvalloc rounds the size up to whole pages");
  void* block = pvalloc(4097);
  EXPECT(malloc_usable_size(block), >=, 8192);
  free(block);
}

static void empty_blocks(void) {
  it("malloc(0) gives a block of its own each time");
  void* blocks[1000];
  for (int i = 0; i < 1000; i++) {
    blocks[i] = getters[i % getter_count].get(0);
    EXPECT(blocks[i] != NULL, ==, 1);
    for (int j = 0; j < i; j++) EXPECT(blocks[j] != blocks[i], ==, 1);
  }
  for (int i = 0; i < 1000; i++) free(blocks[i]);
  free(NULL);
  EXPECT(malloc_usable_size(NULL), ==, 0);
}

static void impossible_sizes(void) {
  static const size_t sizes[] = {((size_t)1 << 48) + 1,
                                 ((size_t)1 << 48) + 64 * KIB,
                                 (size_t)1 << 62,
                                 PTRDIFF_MAX - 4096,
                                 PTRDIFF_MAX,
                                 (size_t)PTRDIFF_MAX + 1,
                                 (size_t)PTRDIFF_MAX + 4096,
                                 SIZE_MAX - 65536,
                                 SIZE_MAX - 4096,
                                 SIZE_MAX - 4095,
                                 SIZE_MAX - 16,
                                 SIZE_MAX - 1,
                                 SIZE_MAX};
  for (int g = 0; g < getter_count; g++)
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
      it(getters[g].name);
      errno = 0;
      EXPECT(getters[g].get(sizes[i]), ==, 0);
      EXPECT(errno, ==, ENOMEM);
    }
  it("a product that overflows is ENOMEM");
  static const size_t pairs[][2] = {
      {SIZE_MAX, 2},         {2, SIZE_MAX},           {(size_t)1 << 32, (size_t)1 << 32},
      {SIZE_MAX / 2 + 1, 2}, {SIZE_MAX / 64 + 1, 64}, {SIZE_MAX, SIZE_MAX}};
  for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
    errno = 0;
    EXPECT(calloc(pairs[i][0], pairs[i][1]), ==, 0);
    EXPECT(errno, ==, ENOMEM);
    char* block = malloc(100);
    fill(block, 0, 100, 3);
    errno = 0;
    EXPECT(reallocarray(block, pairs[i][0], pairs[i][1]), ==, 0);
    EXPECT(errno, ==, ENOMEM);
    EXPECT(kept(block, 100, 3), ==, 100);
    free(block);
  }
}

static void alignments(void) {
  it("posix_memalign refuses a bad alignment with EINVAL and leaves the pointer alone");
  static const size_t bad[] = {0, 1, 2, 3, 4, 7, 9, 12, 24, 48, 100, 4097, SIZE_MAX, SIZE_MAX / 2};
  void* const untouched = (void*)(uintptr_t)0x1234;
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    void* block = untouched;
    EXPECT(posix_memalign(&block, bad[i], 64), ==, EINVAL);
    EXPECT(block, ==, untouched);
  }
  it("posix_memalign returns ENOMEM and leaves the pointer alone");
  for (size_t alignment = 8; alignment <= 64 * MIB; alignment *= 2) {
    void* block = untouched;
    EXPECT(posix_memalign(&block, alignment, SIZE_MAX - 100), ==, ENOMEM);
    EXPECT(block, ==, untouched);
  }
  it("every power of two up to 64 MiB is honoured, for small and large blocks");
  for (size_t alignment = 1; alignment <= 64 * MIB; alignment *= 2)
    for (size_t size = 0; size <= 3 * MIB; size = size * 5 + 1) {
      char* blocks[3] = {memalign(alignment, size), aligned_alloc(alignment, size), NULL};
      if (alignment >= 8) EXPECT(posix_memalign((void**)&blocks[2], alignment, size), ==, 0);
      for (int i = 0; i < 2 + (alignment >= 8); i++) {
        EXPECT(blocks[i] != NULL, ==, 1);
        EXPECT((uintptr_t)blocks[i] % alignment, ==, 0);
        EXPECT(malloc_usable_size(blocks[i]), >=, size);
        fill(blocks[i], 0, size, i + alignment);
      }
      for (int i = 0; i < 2 + (alignment >= 8); i++) {
        EXPECT(kept(blocks[i], size, i + alignment), ==, size);
        blocks[i] = realloc(blocks[i], size + 500);
        EXPECT(kept(blocks[i], size, i + alignment), ==, size);
        free(blocks[i]);
      }
    }
  it("memalign rounds an odd alignment up to a power of two");
  for (size_t alignment = 0; alignment < 5000; alignment = alignment * 3 / 2 + 1) {
    size_t rounded = 16;
    while (rounded < alignment) rounded *= 2;
    void* block = memalign(alignment, 100);
    EXPECT(block != NULL, ==, 1);
    EXPECT((uintptr_t)block % rounded, ==, 0);
    free(block);
  }
  it("aligned_alloc rounds an odd alignment up, as glibc to 2.37, or refuses it with EINVAL, as "
     "later ones");
  errno = 0;
  volatile size_t odd = 48, absurd = SIZE_MAX / 2 + 2;  // volatile: the compiler objects
  void* block = aligned_alloc(odd, 100);
  EXPECT(block ? (uintptr_t)block % 64 == 0 : errno == EINVAL, ==, 1);
  free(block);
  it("an alignment beyond half the address space is refused");
  EXPECT(memalign(absurd, 1), ==, 0);
  EXPECT(aligned_alloc(absurd, 1), ==, 0);
}

static void usable_sizes(void) {
  it("all of malloc_usable_size is constant, writable and nobody else's");
  enum { count = 4000 };
  static char* blocks[count];
  static size_t usable[count];
  for (int i = 0; i < count; i++) {
    blocks[i] = malloc((size_t)i * 7 % 9000);
    usable[i] = malloc_usable_size(blocks[i]);
    fill(blocks[i], 0, usable[i], i);
  }
  for (int i = 0; i < count; i++) {
    EXPECT(malloc_usable_size(blocks[i]), ==, usable[i]);
    EXPECT(kept(blocks[i], usable[i], i), ==, usable[i]);
  }
  it("realloc copies all of malloc_usable_size");
  for (int i = 0; i < count; i++) {
    blocks[i] = realloc(blocks[i], usable[i] * 3);
    EXPECT(kept(blocks[i], usable[i], i), ==, usable[i]);
    free(blocks[i]);
  }
}

static void calloc_is_zero(void) {
  it("calloc gives zeroes where a dirty block was freed");
  enum { count = 8 };
  for (size_t size = 1; size <= 9 * MIB; size = size * 9 / 8 + 7) {
    char* blocks[count];
    for (int i = 0; i < count; i++) memset(blocks[i] = malloc(size), 0xA5, size);
    for (int i = 0; i < count; i++) free(blocks[i]);
    for (int i = 0; i < count; i++) {
      blocks[i] = i % 2 ? calloc(1, size) : calloc(size, 1);
      size_t zeroes = 0;
      while (zeroes < size && !blocks[i][zeroes]) zeroes++;
      EXPECT(zeroes, ==, size);
    }
    for (int i = 0; i < count; i++) free(blocks[i]);
  }
}

static void errno_is_kept(void) {
  void (*sized)(void*, size_t) = (void (*)(void*, size_t))dlsym(RTLD_DEFAULT, "free_sized");
  void (*aligned)(void*, size_t, size_t) =
      (void (*)(void*, size_t, size_t))dlsym(RTLD_DEFAULT, "free_aligned_sized");
  static const size_t sizes[] = {0, 1, 64, 5000, 40000, 300000, 4 << 20, 100 << 20};
  for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
    for (int round = 0; round < 50; round++) {
      char* blocks[3] = {malloc(sizes[i]), malloc(sizes[i]), aligned_alloc(128, sizes[i])};
      if (sizes[i]) *blocks[0] = *blocks[1] = *blocks[2] = 1;
      errno = 77;
      it("free keeps errno");
      free(blocks[0]);
      EXPECT(errno, ==, 77);
      it("free_sized keeps errno");
      sized ? sized(blocks[1], sizes[i]) : free(blocks[1]);
      EXPECT(errno, ==, 77);
      it("free_aligned_sized keeps errno");
      aligned ? aligned(blocks[2], 128, sizes[i]) : free(blocks[2]);
      EXPECT(errno, ==, 77);
    }
  it("free of a null pointer keeps errno");
  free(NULL);
  if (sized) sized(NULL, 0), aligned(NULL, 16, 0);
  EXPECT(errno, ==, 77);
  it("a malloc that succeeds keeps errno");
  free(malloc(100));
  EXPECT(errno, ==, 77);
}

// What the aliases give, free takes; and what malloc gives, the aliases take.
static void aliases(void) {
  void* (*libc_malloc)(size_t) = (void* (*)(size_t))dlsym(RTLD_DEFAULT, "__libc_malloc");
  void* (*libc_calloc)(size_t, size_t) =
      (void* (*)(size_t, size_t))dlsym(RTLD_DEFAULT, "__libc_calloc");
  void* (*libc_realloc)(void*, size_t) =
      (void* (*)(void*, size_t))dlsym(RTLD_DEFAULT, "__libc_realloc");
  void* (*libc_memalign)(size_t, size_t) =
      (void* (*)(size_t, size_t))dlsym(RTLD_DEFAULT, "__libc_memalign");
  void* (*libc_valloc)(size_t) = (void* (*)(size_t))dlsym(RTLD_DEFAULT, "__libc_valloc");
  void* (*libc_pvalloc)(size_t) = (void* (*)(size_t))dlsym(RTLD_DEFAULT, "__libc_pvalloc");
  int (*libc_posix)(void**, size_t, size_t) =
      (int (*)(void**, size_t, size_t))dlsym(RTLD_DEFAULT, "__posix_memalign");
  void (*libc_free)(void*) = (void (*)(void*))dlsym(RTLD_DEFAULT, "__libc_free");
  void (*cfree_)(void*) = (void (*)(void*))dlsym(RTLD_DEFAULT, "cfree");
  it("blocks pass freely between the family and its aliases");
  for (size_t size = 1; size < 5 * MIB; size = size * 2 + 1) {
    void* blocks[] = {malloc(size),
                      libc_malloc(size),
                      libc_calloc(1, size),
                      libc_realloc(malloc(9), size),
                      realloc(libc_malloc(9), size),
                      libc_memalign(64, size),
                      libc_valloc(size),
                      libc_pvalloc(size),
                      NULL};
    EXPECT(libc_posix ? libc_posix(&blocks[8], 64, size) : 0, ==, 0);
    for (size_t i = 0; i < sizeof blocks / sizeof *blocks; i++) {
      EXPECT(malloc_usable_size(blocks[i]), >=, blocks[i] ? size : 0);
      if (blocks[i]) memset(blocks[i], 1, size);
      if (i % 3 == 0)
        free(blocks[i]);
      else if (i % 3 == 1 || !cfree_)
        libc_free(blocks[i]);
      else
        cfree_(blocks[i]);
    }
  }
}

static void the_account(void) {
  it("mallinfo2 counts a block while it lives");
  struct mallinfo2 before = mallinfo2();
  void* block = malloc(10 * MIB);
  struct mallinfo2 during = mallinfo2();
  EXPECT(during.uordblks + during.hblkhd - before.uordblks - before.hblkhd, >=, 10 * MIB);
  free(block);
  EXPECT(mallinfo().arena, >=, 0);

  it("malloc_trim answers 0 or 1");
  EXPECT(malloc_trim(0) & ~1, ==, 0);
  EXPECT(malloc_trim(SIZE_MAX) & ~1, ==, 0);

  it("mallopt answers 0 or 1, whatever it is asked");
  EXPECT(mallopt(M_MMAP_THRESHOLD, 1 << 20) & ~1, ==, 0);
  EXPECT(mallopt(M_ARENA_MAX, 2) & ~1, ==, 0);
  EXPECT(mallopt(12345, -1) & ~1, ==, 0);

  it("malloc_info writes XML, even to a stream that allocates, and refuses options");
  char* text = NULL;
  size_t length = 0;
  FILE* stream = open_memstream(&text, &length);
  EXPECT(malloc_info(0, stream), ==, 0);
  EXPECT(malloc_info(1, stream) != 0, ==, 1);
  fclose(stream);
  EXPECT(length > 10 && strstr(text, "<malloc") != NULL && strstr(text, "</malloc>") != NULL, ==,
         1);
  free(text);

  it("malloc_stats writes to stderr");
  FILE* seen = tmpfile();
  int saved = dup(STDERR_FILENO);
  dup2(fileno(seen), STDERR_FILENO);
  malloc_stats();
  fflush(stderr);
  dup2(saved, STDERR_FILENO);
  EXPECT(lseek(fileno(seen), 0, SEEK_END), >, 0);
  fclose(seen);
  close(saved);
}

int main(void) {
  every_door_is_ours();
  alignment_and_size();
  empty_blocks();
  impossible_sizes();
  alignments();
  usable_sizes();
  calloc_is_zero();
  errno_is_kept();
  aliases();
  the_account();
  return verdict();
}
