// SPDX-License-Identifier: MIT
// L5 · embedded: arenas inside memory that somebody else mapped, and unmaps without telling us.
//
// What:    finds this process's handle on the arena at an address, or makes one.
// How:     the memory's file is mapped a second time, by a handle like any other. So our mapping
//          stays when theirs goes: a thread that ends later still finds its lane. A handle belongs
//          to an address; that the memory there is still that arena is told by its header's id.
// Ends:    before a handle is made, those are closed whose file is no longer mapped where it was.
//          An entry is first hidden, then its address looked at: who uses an arena has it mapped,
//          so no handle is closed that may be in use.
// Locks:   one for the process; finding takes none.
#pragma once

#include "handle.h"

namespace ashlar::shm {

// Null: there is none yet.
ashlar_shm* find_embedded(const void* memory);

// Makes a handle on the segment at `origin` of that file; new_bytes != 0: makes the segment, too.
using OpenAt = ashlar_shm* (*)(int fd, Offset origin, Bytes new_bytes);
// The handle on the arena at `memory`, or on a new one there. Null and errno.
ashlar_shm* attach_embedded(const void* memory, Bytes new_bytes, OpenAt open);
// No handle on the arena at `memory`, or on one whose memory is gone, is open any more.
void detach_embedded(const void* memory);

}  // namespace ashlar::shm
