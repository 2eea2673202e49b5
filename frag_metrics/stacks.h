// SPDX-License-Identifier: MIT
// stacks: what registers and a piece of stack say, once unwound and given names.
//
// How:     the unwind tables of the ELF files that the target has mapped (libdw). The target itself
//          is not asked: all there is to a stack was copied when the sample was taken, and a stack
//          that is longer than the copy ends early. Frames of the allocator are left out.
// Errors:  Error when the files cannot be looked at. A stack that makes no sense is short or empty.
// Threads: one at a time.
#pragma once

#include <memory>
#include <vector>

#include "samples.h"
#include "snapshot.h"

namespace ashlar::frag {

class Stacks {
 public:
  // `name`: the core file, for snapshots of one.
  Stacks(const Snapshot& snapshot, const std::string& name);
  ~Stacks();

  std::vector<Frame> unwind(const Sample& sample);
  // The stacks of all samples, in their order.
  std::vector<std::vector<Frame>> unwind(const Samples& samples);

 private:
  struct Session;
  std::unique_ptr<Session> session_;
};

}  // namespace ashlar::frag
