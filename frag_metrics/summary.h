// SPDX-License-Identifier: MIT
// summary: the account of this process's heap, for people and for glibc's malloc_info.
//
// What:    where the bytes are between what the program holds and what the kernel gave, and which
//          size classes the gap is in. README.md beside this file defines every number.
// Threads: any. Async-signal-safe but for write_xml, which uses the stream it is given. Never
//          allocates. Reads only.
#pragma once

#include <cstdio>

namespace ashlar {

void write_summary(int fd);
// False when the stream has an error.
bool write_xml(std::FILE* stream);

}  // namespace ashlar
