// SPDX-License-Identifier: MIT
// L5 · roots: words that find blocks.
//
// What:    a hash table of offsets of Root records, which hold the word and its value.
// How:     linear probing; a place is filled by one compare-and-swap and never emptied, so two who
//          enter the same word meet in the same place. Values change by single stores.
// Death:   a record is on its way into its place as with malloc_into: it is there or freed.
// Threads: any. Errors: errno values.
#pragma once

#include "lanes.h"

namespace ashlar::shm {

[[nodiscard]] int set_root(ashlar_shm& arena, const char* key, Offset value);
Offset get_root(ashlar_shm& arena, const char* key);
[[nodiscard]] int replace_root(ashlar_shm& arena, const char* key, Offset expected, Offset desired);
int for_each_root(ashlar_shm& arena, int (*visit)(const char* key, Offset value, void* context),
                  void* context);
// The record of a key; null: there is none.
Root* find_root(ashlar_shm& arena, const char* key);
// The record that a place holds; null: it holds none, or nothing sane.
Root* root_at(ashlar_shm& arena, Offset offset);

}  // namespace ashlar::shm
