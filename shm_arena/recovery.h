// SPDX-License-Identifier: MIT
// L4 · recovery: what a process that is gone left behind is made sound.
//
// What:    finds processes that died (see processes.h) and settles their lanes, while all others
//          go on. Closing a handle of scoped blocks is the same thing, done in time.
// How:     whoever recovers a process has its lanes to himself, and works in their names:
//            1  unit entries without a slab's block are cleared: the slab was being made or given
//            2  the chunks that a lane holds are rebuilt from block words, and let go; a large
//               block that was being given back is
//            3  slots that its cursors hold go back to their slabs
//            4  a block that was on its way into a slot and is not there is given back; so is the
//               slot that a handle was about to name and does not, or not any more
//            5  of a scoped process, all blocks are given back
//            6  the lanes are vacant, and then the process's place is free
// Death:   each step may be cut short and repeated: it looks at what is there and sets what must
//          be. A lane that is settled twice is settled. Step 1 comes before 2, since others may
//          take the pages as soon as the chunk is let go.
// Threads: any; two callers share the work by process.
#pragma once

#include "handle.h"

namespace ashlar::shm {

// Makes sure that this process has a place; where all are taken, one of a process that died. 0, or
// as Processes::join().
[[nodiscard]] int join_arena(ashlar_shm& arena);
// Returns how many processes were recovered.
std::uint32_t recover_dead(ashlar_shm& arena);
// This process's lanes are vacant, and its scoped blocks free. No thread uses the handle.
void leave_arena(ashlar_shm& arena);

}  // namespace ashlar::shm
