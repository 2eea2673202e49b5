// SPDX-License-Identifier: MIT
// L5 · hand pass: a pass whose moves the program makes, or does not.
//
// What:    begin names objects that should move and where to, the program says of each what became
// of
//          it, and the end commits that.
// How:     a victim walk, in which each object's entry says `moving`, and the slot where it may go
// has
//          a keeper (handles.h), until the end. What others lock or free meanwhile comes to nothing
//          by that alone, as in compaction.
// Death:   the arena knows of no pass by hand, only of keepers: once recovery has cleared their
// pins,
//          whoever comes by gives their slots back. An entry that says `moving` says where its
//          object is. So each object is at its old place until the end moves it, and then at its
//          new one.
// Fork:    a child has no lane, and so no pass.
// Threads: any; who begins a pass ends it.
#pragma once

#include <ashlar/passes.h>

#include "handle.h"

namespace ashlar::shm {

// These return 0 or an errno value. EBUSY, ENOMEM, and what a lane costs.
[[nodiscard]] int begin_hand_pass(ashlar_shm& arena, std::uint64_t budget_us, Bytes budget_bytes,
                                  ashlar_move* moves, std::size_t n, std::size_t& count);
// EINVAL: this thread has not begun a pass with these moves; nothing is done.
[[nodiscard]] int end_hand_pass(ashlar_shm& arena, const ashlar_move* moves, std::size_t n,
                                ashlar_moved& moved);
// True also where this thread has begun none.
bool hand_pass_should_stop(const ashlar_shm& arena);

}  // namespace ashlar::shm
