// SPDX-License-Identifier: MIT
#include "crime.h"

int main() {
  alignas(16) int here[16] = {};
  delete static_cast<int*>(victim(here));
}
