// SPDX-License-Identifier: MIT
// L1 · unit_scores: address → how much is won by moving away what lies there, a byte per unit.
//
// What:    0 for what is to stay; 1 to 255 for a slab that is to be emptied, the emptiest highest.
//          compact writes a plan into it, and the arena hands out nothing from such slabs.
// How:     a table for as many units as the arena had when it was made. A larger one takes the
//          place of a smaller one, which stays readable: all of them together are less than twice
//          the last. Units behind the end of the table are to stay.
// Threads: written by who plans and by owners of slabs, byte by byte; read by all. A score is
//          advice, so all of them are relaxed.
#pragma once

#include <atomic>

#include "units.h"

namespace ashlar {

class UnitScores {
 public:
  // Followed by a score for each unit.
  struct Table {
    std::uint32_t units;

    std::atomic<std::uint8_t>& score(Bytes unit) {
      return reinterpret_cast<std::atomic<std::uint8_t>*>(this + 1)[unit];
    }
  };
  static constexpr Bytes bytes_for(std::uint32_t units) { return sizeof(Table) + units; }

  constexpr UnitScores() = default;

  // Of the unit at that distance from the arena's data, which may be anything.
  std::uint8_t at_offset(Bytes offset) const {
    Table& table = *table_.load(std::memory_order_acquire);  // pairs with: use
    const Bytes unit = offset / kUnitBytes;
    return unit < table.units ? table.score(unit).load(std::memory_order_relaxed) : 0;
  }
  std::uint8_t operator[](UnitIndex unit) const { return at_offset(Bytes{unit.v} * kUnitBytes); }
  void set(UnitIndex first, std::uint32_t units, std::uint8_t score) {
    Table& table = *table_.load(std::memory_order_acquire);  // pairs with: use
    for (std::uint32_t u = first.v; u < first.v + units && u < table.units; u++) {
      table.score(u).store(score, std::memory_order_relaxed);
    }
  }

  // Goes up with every plan, so that owners notice a new one. 0: there was none yet.
  std::uint32_t plan() const { return plan_.load(std::memory_order_relaxed); }
  void announce_plan() { plan_.store(plan() + 1, std::memory_order_relaxed); }  // one at a time

  std::uint32_t units() const { return table_.load(std::memory_order_acquire)->units; }
  // `table` is all zero.
  void use(Table& table, std::uint32_t units) {
    table.units = units;
    table_.store(&table, std::memory_order_release);  // pairs with: at_offset, set
  }

 private:
  static inline constinit Table none_{};

  std::atomic<Table*> table_ = &none_;   // atomic: who plans → all
  std::atomic<std::uint32_t> plan_ = 0;  // atomic: who plans → owners
};

}  // namespace ashlar
