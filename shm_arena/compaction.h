// SPDX-License-Identifier: MIT
// L5 · compaction: objects with handles move together, and what they leave goes back.
//
// What:    a pass marks victims (victims.h), goes through the table of handles, and moves what lies
//          in a victim and is not locked. It may be cut up into as many calls as one likes.
// How:     one at a time compacts: its lane is in the arena's state. Of a move, the victim's slab
//          and the other one are held, the entry says `moving`, pins are looked at, the bytes are
//          copied, and one exchange of the entry says where they are now. A lock or a free in
//          between changes the entry, so that the exchange fails; then the copy is dropped.
// Death:   see handles.h. What was moved stays moved, and the pass goes on where the next call
//          finds it: its place and the marks are in the arena.
// Threads: any.
#pragma once

#include "handles.h"

namespace ashlar::shm {

struct Compaction {
  std::uint64_t budget_us;  // 0: no limit, like the next
  Bytes budget_bytes;
  Bytes moved_bytes;
  Bytes freed_bytes;
  std::uint64_t moved;   // objects
  std::uint64_t locked;  // objects that stayed where they are because they were in use
  bool finished;
};

// 0, or an errno value: EBUSY, ENOMEM, and what a lane costs.
[[nodiscard]] int compact(ashlar_shm& arena, Compaction& pass);

}  // namespace ashlar::shm
