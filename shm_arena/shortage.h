// SPDX-License-Identifier: MIT
// L4 · shortage: tells the program that an arena is nearly full, or its own quota nearly used up.
//
// What:    above nine tenths of either, or where a call finds none, memory is short; at eight
// tenths of
//          both or below, it is enough.
// How:     there is no thread of ours here. Whoever took pages looks when its call is over, and so
// do
//          those who make passes. So it is told by a thread of the program's own, and of other
//          processes' doing when that thread comes by.
// Cost:    nothing where nobody wants to be told. Otherwise a look for each slab or large block
// that
//          is taken: a load, while the arena has not grown to nine tenths of its maximum; then two
//          for each chunk.
// Threads: any, outside of all that others could wait for: the program's function may call
// anything.
#pragma once

#include "lanes.h"

namespace ashlar::shm {

// Keeps errno. `failed`: there was no memory; that is told however soon after the last time.
void look_at_memory(View& view, bool failed = false);
// The same, if this thread took pages since it looked last.
inline void look_if_grown(View& view, bool failed) {
  if (view.has_grown) [[unlikely]]
    look_at_memory(view, failed);
}

}  // namespace ashlar::shm
