// SPDX-License-Identifier: MIT
// summary: the account of this process's heap, for people, programs, and glibc's malloc_info.
//
// What:    where the bytes are between what the program holds and what the kernel gave, and which
//          size classes the gap is in. README.md beside this file defines every number.
// Threads: any. Async-signal-safe where the output is (a descriptor is, a stream is not). Never
//          allocates. Reads only.
#pragma once

#include <cstdio>

#include "check.h"

namespace ashlar {

// Where text goes: a descriptor, or a function that is given zero-terminated pieces.
class Output {
 public:
  using Write = void (*)(void* context, const char* text);
  explicit Output(int fd) : fd_(fd) {}
  Output(Write write, void* context) : write_(write), context_(context) {}
  void put(const Text& text) const;

 private:
  int fd_ = -1;
  Write write_ = nullptr;
  void* context_ = nullptr;
};

void write_summary(const Output& out);
// One JSON object; `schema` counts changes of its form.
void write_json(const Output& out);
// False when the stream has an error.
bool write_xml(std::FILE* stream);

}  // namespace ashlar
