// SPDX-License-Identifier: MIT
#include "crime.h"

int main() {
  int* block = static_cast<int*>(victim(new int[16]));
  delete[] block;
  delete[] block;
}
