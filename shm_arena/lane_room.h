// SPDX-License-Identifier: MIT
// L4 · lane room: where a lane finds room when its own slabs have none.
//
// What:    what others freed in its slabs; what dead processes left; slabs of lanes that nobody
//          leases; pages; and at last a larger arena.
// Threads: the view's.
#pragma once

#include "lanes.h"

namespace ashlar::shm {

// Takes over what others freed in this lane's slabs. False: nothing.
bool drain_news(View& view);
// Slabs of lanes that nobody leases become this lane's. False: there are none for it.
bool adopt_vacant(View& view);
// Pages of slabs and large blocks that this process holds.
std::uint64_t held_pages(const ashlar_shm& arena);
// Whether this process may hold so many pages more.
bool within_quota(const ashlar_shm& arena, PageCount pages);
// Pages for a block; the chunks they lie in stay held until commit(). kNone and errno: no room.
[[nodiscard]] PageIndex claim_pages(View& view, PageCount pages, PageCount alignment);

}  // namespace ashlar::shm
