// SPDX-License-Identifier: MIT
#include "crime.h"

int main(void) { free(victim((void*)(uintptr_t)main)); }
