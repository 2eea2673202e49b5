// SPDX-License-Identifier: MIT
// L5 · compaction: objects with handles move together, and what they leave goes back.
//
// What:    a pass goes through the table of handles, and moves what lies in a victim and is not
//          locked. It may be cut up into as many calls as one likes (victim_walk.h).
// How:     of a move, the victim's slab and the other one are held, the entry says `moving`, pins
// are
//          looked at, the bytes are copied, and one exchange of the entry says where they are now.
//          A lock or a free in between changes the entry, so that the exchange fails; then the copy
//          is dropped.
// Death:   see handles.h. What was moved stays moved, and the pass goes on where the next call
//          finds it.
// Threads: any.
#pragma once

#include <ashlar/passes.h>

#include "handles.h"

namespace ashlar::shm {

// Adds to `moved`. 0, or an errno value: EBUSY, ENOMEM, and what a lane costs.
[[nodiscard]] int compact(ashlar_shm& arena, std::uint64_t budget_us, Bytes budget_bytes,
                          ashlar_moved& moved, bool& more);

// The same, and whatever else waits for somebody to come by: dead processes, slots that others
// freed in this lane's slabs, a look at memory. Nothing to do where another pass goes on.
[[nodiscard]] int compact_while_quiet(ashlar_shm& arena, std::uint64_t budget_us,
                                      ashlar_moved& moved, bool& more);

// `moving` is the entry now. False: somebody locked, freed or moved the object, or has it pinned;
// then the entry is as it was, or as they left it.
[[nodiscard]] bool begin_move(const ashlar_shm& arena, std::uint32_t index, HandleEntry entry,
                              HandleEntry& moving);
// The object stays where it is.
void cancel_move(const ashlar_shm& arena, std::uint32_t index, HandleEntry moving);

}  // namespace ashlar::shm
