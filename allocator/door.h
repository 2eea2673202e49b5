// SPDX-License-Identifier: MIT
// L6 · door: what programs may call.
#pragma once

#define ASHLAR_DOOR extern "C" [[gnu::visibility("default")]]
