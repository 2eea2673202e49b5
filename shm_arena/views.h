// SPDX-License-Identifier: MIT
// L4 · views: which thread has which lane of which arena.
//
// What:    a thread has a table of views, by the handles' numbers, and remembers the one that it
// used
//          last. It leases a lane when it first needs one, and gives it up when it ends.
// How:     a lane that ends with its thread stays as it is, slabs and all: whoever leases it next
//          goes on with them, and lanes that need memory take slabs from those that nobody leases.
//          In a process whose blocks are scoped, lanes stay the process's until it leaves.
// Locks:   one for the process, around handle numbers and the list of threads; rare paths only.
#pragma once

#include "lanes.h"

namespace ashlar::shm {

// The calling thread's view, with a lane. Null and errno: EAGAIN, ENOMEM, EACCES.
View* view_for_thread(ashlar_shm& arena);
// A number and an id for a new handle. False: all numbers are in use.
[[nodiscard]] bool register_handle(ashlar_shm& arena);
// The handle is open, and find_handle() may find it.
void publish_handle(ashlar_shm& arena);
// The handle whose segment has that address, or null.
ashlar_shm* find_handle(const void* p);
// No thread uses the handle any more: its views go, its lanes stay leased.
void unregister_handle(std::uint32_t number);

}  // namespace ashlar::shm
