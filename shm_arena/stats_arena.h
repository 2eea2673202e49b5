// SPDX-License-Identifier: MIT
// L5 · stats_arena: sums what a shared arena's structures know, and who is attached; reads only.
#pragma once

#include "handle.h"

namespace ashlar::shm {

void collect_stats(ashlar_shm& arena, ashlar_shm_stats& stats);
int for_each_process(ashlar_shm& arena, int (*visit)(const ashlar_shm_process*, void* context),
                     void* context);

}  // namespace ashlar::shm
