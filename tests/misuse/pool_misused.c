// SPDX-License-Identifier: MIT
// argv[1] says how.
#include <ashlar/compact.h>

#include "crime.h"

int main(int argc, char** argv) {
  const char* how = argc > 1 ? argv[1] : "";
  ashlar_pool* pool = ashlar_pool_create(NULL, NULL);
  void* object = ashlar_pool_malloc(pool, 64, 1);
  ashlar_pool_malloc(pool, 64, 2);
  if (strcmp(how, "no pool") == 0) {
    ashlar_pool_malloc((ashlar_pool*)victim(malloc(64)), 10, 0);
  } else if (strcmp(how, "destroyed twice") == 0) {
    victim(pool);
    ashlar_pool_destroy(pool);
    ashlar_pool_destroy(pool);
  } else if (strcmp(how, "freed twice") == 0) {
    victim(object);
    ashlar_pool_free(pool, object);
    ashlar_pool_free(pool, object);
  } else if (strcmp(how, "freed by free") == 0) {
    free(victim(object));
  } else if (strcmp(how, "unpinned too often") == 0) {
    ashlar_pool_unpin(pool, victim(object));
  } else if (strcmp(how, "of malloc") == 0) {
    char* other = malloc(64);
    victim(other);
    ashlar_pool_free(pool, other + 16);
  } else if (strcmp(how, "tags where handles are") == 0) {
    ashlar_pool_malloc(victim(ashlar_pool_create_for_handles()), 64, 1);
  } else if (strcmp(how, "handles where tags are") == 0) {
    ashlar_pool_handle_alloc(victim(pool), 64);
  }
}
