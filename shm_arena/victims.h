// SPDX-License-Identifier: MIT
// L5 · victims: which slabs of objects with handles a pass empties.
//
// What:    marks victims, so that what lives fits into the slabs that are left.
// How:     of each class as many slabs stay as its objects need; which ones, a score says: how full
//          the slab is, and how its chunk ranks among all by what cannot or need not leave it. So
//          sparse slabs go first, and of equally sparse ones those whose chunk then is empty.
//          No byte is moved twice, and never more than are freed.
//          Three walks over all slabs count, score and mark; each in pieces, so that a call with a
//          budget can leave the rest to the next one. Slabs change meanwhile; it is advice.
// Where:   counts are this process's own. If another one has chosen meanwhile, they are made anew.
// Threads: the one whose turn it is to compact.
#pragma once

#include "deadline.h"
#include "units.h"

struct ashlar_shm;

namespace ashlar::shm {

struct View;

class Victims {
 public:
  // Goes on until all are chosen, or the time is over. Empty slabs are given back at once; their
  // bytes are added to `freed`. 0, or ENOMEM.
  [[nodiscard]] int choose(View& view, Deadline deadline, Bytes& freed, bool& chosen);
  void close();

 private:
  class Ranking;

  Ranking* ranking_ = nullptr;  // null: no choice is under way
};

}  // namespace ashlar::shm
