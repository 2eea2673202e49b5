// SPDX-License-Identifier: MIT
#include "crime.h"

static _Alignas(16) char here[64] = "in the data segment";

int main(void) { free(victim(here)); }
