// SPDX-License-Identifier: MIT
// L5 · victims: which slabs of objects with handles a pass empties.
//
// What:    marks victims, so that what lives fits into the slabs that are left.
// How:     of each class as many slabs stay as its objects need; which ones, a score says: how full
//          the slab is, and how its chunk ranks among all by what cannot or need not leave it. So
//          sparse slabs go first, and of equally sparse ones those whose chunk then is empty.
//          No byte is moved twice, and never more than are freed.
// Threads: the one that compacts.
#pragma once

#include "handle_slabs.h"

namespace ashlar::shm {

// Empty slabs are given back at once; returns their bytes. False: no memory for the count.
[[nodiscard]] bool choose_victims(View& view, Bytes& freed);

}  // namespace ashlar::shm
