// SPDX-License-Identifier: MIT
// A program that is linked with the library, shared and static, and uses what its header offers.
#include <ashlar/ashlar.h>

#include "expect.h"

const char* ashlar_conf = "purge_ms:500,magazine_kib:64";

int main(void) {
  it("the program's malloc is ours");
  ashlar_stats before, after;
  EXPECT(ashlar_get_stats(&before), ==, 0);
  char* large = malloc(10 * MIB);
  EXPECT(large != NULL, ==, 1);
  memset(large, 1, 10 * MIB);
  EXPECT(ashlar_get_stats(&after), ==, 0);
  EXPECT(after.allocated - before.allocated, ==, 10 * MIB);
  EXPECT(after.resident - before.resident, >=, 10 * MIB);
  EXPECT(after.active, >=, after.allocated);
  EXPECT(after.mapped, >=, after.active);
  free(large);

  it("the version is that of the header");
  char version[32];
  snprintf(version, sizeof version, "%d.%d.%d", ASHLAR_VERSION_MAJOR, ASHLAR_VERSION_MINOR,
           ASHLAR_VERSION_PATCH);
  EXPECT(strcmp(ashlar_version(), version), ==, 0);

  it("a report goes where it is told, or says why not");
  int ends[2];
  EXPECT(pipe(ends), ==, 0);
  EXPECT(ashlar_report(ends[1]), ==, 0);
  char text[64] = "";
  EXPECT(read(ends[0], text, sizeof text - 1), >, 0);
  EXPECT(strstr(text, "ashlar 0.") != NULL, ==, 1);
  errno = 0;
  EXPECT(ashlar_report(1000), ==, -1);
  EXPECT(errno, ==, EBADF);
  return verdict();
}
