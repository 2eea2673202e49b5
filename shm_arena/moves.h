// SPDX-License-Identifier: MIT
// L5 · moves: blocks that a program moves itself, since it knows who has their positions.
//
// What:    hints, and moves of one block each, as on the heap: what leaves goes to slabs of the
//          calling thread's lane that are to stay. Which those are, the plan says.
// Death:   who dies in a move leaves the block where it was, and one more that is nobody's at most.
//          Where the position lies in the arena, one store changes it, and of the two blocks the
//          one that it does not name is given back, or leaked if it was the old one.
// Threads: any. Nobody else uses the block meanwhile: that is the program's to see to.
#pragma once

#include "lanes.h"

namespace ashlar::shm {

// How much is won by moving what lies at p, which may be any address. 0: it stays.
std::uint8_t hint(const ashlar_shm& arena, const void* p);

// The block's new place; the old one is free. Null: it stays; EINVAL: no block starts at p.
void* move_block(ashlar_shm& arena, void* p);
// The same for the block whose offset is in `slot`, where the new one is afterwards. 0: it stays.
Offset move_published(ashlar_shm& arena, std::atomic<Offset>& slot);

}  // namespace ashlar::shm
