// SPDX-License-Identifier: MIT
// Nobody hears the message, and the program must end all the same. (The runner hears none.)
#include "crime.h"

int main(void) {
  void* block = victim(malloc(64));
  close(STDERR_FILENO);
  free(block);
  free(block);
}
