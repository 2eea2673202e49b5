// SPDX-License-Identifier: MIT
// The root that readers outside look for; linked into the allocator's libraries.
#include "root.h"

#include "layout.h"

namespace ashlar {

constinit Root ashlar_root = {
    .bytes = sizeof(Root),
    .layout = frag::layout_hash(),
    .release = ASHLAR_VERSION,
    .options = &options,
    .sampler = &sampler,
};

}  // namespace ashlar
