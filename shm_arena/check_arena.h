// SPDX-License-Identifier: MIT
// L5 · check_arena: whether a shared arena is sound; reads only.
//
// Invariants, by the numbers that a report names:
//   1  the header is the one that was made with the segment
//   2  a chunk is held by nobody, or by a lane whose process lives
//   3  every page of a chunk with memory is free or in exactly one block; a chunk without has none
//   4  a summary counts the free pages of its row
//   5  unit entries stand for slabs that exist, and each slab has all of its own
//   6  bits behind a slab's last slot are set; no slot of a leased lane is free and freed at once
//   7  lanes are leased by processes that are attached; only a leased one has a block on its way
//   8  a root's place holds a record in use, and its key finds it
// Threads: any; meant for a quiet arena.
#pragma once

#include "handle.h"

namespace ashlar::shm {

// False: `why` says what is broken.
bool check_arena(ashlar_shm& arena, Text& why);

}  // namespace ashlar::shm
