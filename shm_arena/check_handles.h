// SPDX-License-Identifier: MIT
// L5 · check_handles: whether handles and the slabs of their objects agree. For a quiet arena.
#pragma once

#include "check.h"
#include "handle.h"

namespace ashlar::shm {

// Every object lies in a slot in use, and every slot in use has one object. Else a sentence in
// `why`, which check_arena numbers 9.
bool check_handles(ashlar_shm& arena, Text& why);

}  // namespace ashlar::shm
