/* SPDX-License-Identifier: MIT
 *
 * A program that opens the library late, and allocates 10,000 objects of 100 bytes from it.
 *
 *   known_dlopened LIBRARY
 */
#include <dlfcn.h>
#include <stdio.h>

int main(int argc, char **argv) {
  void *const library = argc > 1 ? dlopen(argv[1], RTLD_NOW | RTLD_LOCAL) : NULL;
  if (library == NULL) return 2;
  void *(*const allocate)(size_t) = (void *(*)(size_t))dlsym(library, "malloc");
  if (allocate == NULL) return 2;
  for (int i = 0; i < 10000; i++) *(char *)allocate(100) = 1;
  puts("ready");
  fflush(stdout);
  while (getchar() != EOF) {
  }
  return 0;
}
