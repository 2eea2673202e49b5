// SPDX-License-Identifier: MIT
// crime.h: each program commits one crime and ends there. It names the victim on stdout first, so
// that the runner can look for that very address in the message; it must not be alive after the
// crime.
#ifndef ASHLAR_TESTS_CRIME_H
#define ASHLAR_TESTS_CRIME_H

#include <malloc.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

// Returns `block` after its address was written down, without malloc.
static inline void* victim(void* block) {
  char text[32];
  int length = snprintf(text, sizeof text, "%p\n", block);
  if (write(STDOUT_FILENO, text, (size_t)length) < 0) abort();
  return block;
}

// Enough traffic in the class of `size` that whatever a magazine held has left it.
static inline void churn(size_t size) {
  enum { count = 20000 };
  static void* blocks[count];
  for (int round = 0; round < 3; round++) {
    for (int i = 0; i < count; i++) blocks[i] = malloc(size);
    for (int i = 0; i < count; i++) free(blocks[i]);
  }
}

static inline void in_other_thread(void* (*body)(void*), void* argument) {
  pthread_t thread;
  pthread_create(&thread, NULL, body, argument);
  pthread_join(thread, NULL);
}

#endif
