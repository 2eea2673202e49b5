// SPDX-License-Identifier: MIT
#include "program.h"

#include <cstdio>

namespace ashlar::bench {

bool chosen(int argc, char** argv, std::string_view yes, std::string_view no) {
  if (argc == 2 && (argv[1] == yes || argv[1] == no)) return argv[1] == yes;
  std::fprintf(stderr, "usage: %s %s|%s\n", argv[0], yes.data(), no.data());
  std::exit(2);
}

}  // namespace ashlar::bench
