// SPDX-License-Identifier: MIT
#include "common.h"

#include <dlfcn.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace ashlar::bench {

void require_expected_malloc() {
  const char* expected = std::getenv("ASHLAR_BENCH_EXPECT");
  if (expected == nullptr) return;
  Dl_info where{};
  dladdr(dlsym(RTLD_DEFAULT, "malloc"), &where);
  const char* found = where.dli_fname != nullptr ? where.dli_fname : "nowhere";
  if (std::strstr(found, expected) != nullptr) return;
  std::fprintf(stderr, "malloc comes from %s, not from %s\n", found, expected);
  std::exit(2);
}

}  // namespace ashlar::bench
