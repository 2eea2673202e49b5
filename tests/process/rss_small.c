// SPDX-License-Identifier: MIT
// A small C program stays small: with 200 blocks of 64 bytes it has never held more than 2 MiB.
#include "expect.h"

int main(void) {
  char* blocks[200];
  for (int i = 0; i < 200; i++) memset(blocks[i] = malloc(64), 1, 64);
  long peak = status_kib("VmHWM:"), now = status_kib("VmRSS:");
  it("200 blocks of 64 bytes fit in 2 MiB of resident memory");
  EXPECT(peak, <=, 2048);
  EXPECT(now, <=, 2048);
  EXPECT(now, >, 100);
  for (int i = 0; i < 200; i++) free(blocks[i]);
  return verdict();
}
