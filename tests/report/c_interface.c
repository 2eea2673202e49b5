/* SPDX-License-Identifier: MIT
 *
 * The library's interface for C: prints what it says about a process or core file, as "name value".
 *
 *   c_interface PID|CORE
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "frag_metrics.h"

int main(int argc, char **argv) {
  if (argc != 2) return 2;
  char error[200] = "";
  char *end = NULL;
  const long pid = strtol(argv[1], &end, 10);
  frag_snapshot *const snapshot = *end == '\0' ? frag_capture_process(pid, error, sizeof error)
                                               : frag_capture_core(argv[1], error, sizeof error);
  if (snapshot == NULL) {
    puts(error);
    /* A message that does not fit is cut, and none is wanted at all. */
    char tiny[4] = "xxx";
    frag_capture_core("/nowhere", tiny, sizeof tiny);
    if (strlen(tiny) != 3) return 3;
    return frag_capture_core("/nowhere", NULL, 0) == NULL ? 1 : 3;
  }
  frag_waterfall w;
  frag_get_waterfall(snapshot, &w);
  printf("allocated %" PRIu64 "\nactive %" PRIu64 "\nresident %" PRIu64 "\nmapped %" PRIu64 "\n",
         w.allocated, w.active, w.resident, w.mapped);
  frag_class classes[100];
  const size_t count = frag_get_classes(snapshot, classes, 100);
  if (frag_get_classes(snapshot, NULL, 0) != count) return 3;
  for (size_t i = 0; i < count; i++) {
    printf("objects-%" PRIu64 " %" PRIu64 "\n", classes[i].slot_bytes, classes[i].objects);
  }
  printf("unusable %.6f\nmeshable %" PRIu64 "\n", frag_unusable_free_space(snapshot, 512),
         frag_meshable(snapshot, 1));
  char *const json = frag_json(snapshot);
  if (json == NULL || strstr(json, "\"schema\"") == NULL) return 3;
  free(json);
  frag_free(snapshot);
  return 0;
}
