// SPDX-License-Identifier: MIT
// argv[1] says how.
#include <ashlar/ashlar.h>

#include "crime.h"

int main(int argc, char** argv) {
  const char* how = argc > 1 ? argv[1] : "";
  free(malloc(64));  // so that this thread has what it needs
  ashlar_heap* heap = ashlar_heap_create(NULL);
  ashlar_heap* other = ashlar_heap_create(NULL);
  if (strcmp(how, "destroyed twice") == 0) {
    victim(heap);
    ashlar_heap_destroy(heap);
    ashlar_heap_destroy(heap);
  } else if (strcmp(how, "used when destroyed") == 0) {
    victim(heap);
    ashlar_heap_destroy(heap);
    ashlar_heap_malloc(heap, 10);
  } else if (strcmp(how, "no heap") == 0) {
    ashlar_heap_free((ashlar_heap*)victim(malloc(64)), NULL);
  } else if (strcmp(how, "null") == 0) {
    ashlar_heap_malloc(victim(NULL), 10);
  } else if (strcmp(how, "object of another") == 0) {
    ashlar_heap_free(heap, victim(ashlar_heap_malloc(other, 64)));
  } else if (strcmp(how, "object of malloc") == 0) {
    ashlar_heap_free(heap, victim(malloc(64)));
  } else if (strcmp(how, "large of malloc") == 0) {
    ashlar_heap_free(heap, victim(malloc(1 << 20)));
  } else if (strcmp(how, "inside") == 0) {
    ashlar_heap_free(heap, (char*)victim((char*)ashlar_heap_malloc(heap, 64) + 16));
  } else if (strcmp(how, "inside large") == 0) {
    ashlar_heap_free(heap, (char*)victim((char*)ashlar_heap_malloc(heap, 1 << 20) + 65536));
  } else if (strcmp(how, "freed twice") == 0) {
    void* object = victim(ashlar_heap_malloc(heap, 64));
    ashlar_heap_malloc(heap, 64);
    ashlar_heap_free(heap, object);
    ashlar_heap_free(heap, object);
  } else if (strcmp(how, "large freed twice") == 0) {
    void* object = victim(ashlar_heap_malloc(heap, 1 << 20));
    ashlar_heap_free(heap, object);
    ashlar_heap_free(heap, object);
  } else if (strcmp(how, "freed by both") == 0) {
    void* object = victim(ashlar_heap_malloc(heap, 64));
    free(object);
    free(object);
  } else if (strcmp(how, "freed after it is gone") == 0) {
    void* object = victim(ashlar_heap_malloc(heap, 64));
    ashlar_heap_destroy(heap);
    free(object);
  } else if (strcmp(how, "realloc of another's") == 0) {
    ashlar_heap_realloc(heap, victim(ashlar_heap_malloc(other, 64)), 100);
  }
}
