// SPDX-License-Identifier: MIT
// L4 · handle: one process's view of one shared arena; what ashlar_shm points to.
#pragma once

#include <ashlar/shm.h>

#include "notices.h"
#include "pages.h"
#include "plan.h"
#include "processes.h"
#include "victims.h"

namespace ashlar::shm {

// Where this process looks first; for its threads, and never believed.
struct HandleHints {
  std::atomic<std::uint32_t> entry = 0;                     // from here on for one that is free
  std::atomic<std::uint32_t> slab[kClassCount] = {};        // the unit of one that may have room
  std::atomic<std::uint32_t> empty_slab[kClassCount] = {};  // of one that may be all free
};

// The pass by hand that a thread of this process has begun; see hand_pass.h.
struct HandPass {
  static constexpr std::uint32_t kMoves = 128;  // each takes a pin
  struct Move {
    std::uint64_t handle;
    std::uint32_t keeper;  // of the slot that it may move to
  };

  // atomic: who begins a pass → all; the lane, plus one; 0: none does
  std::atomic<std::uint32_t> lane;
  std::uint32_t count;  // that thread's, like the next
  Deadline deadline;
  Bytes freed;  // by the beginning
  Move move[kMoves];
};

// What the program was told of memory; see shortage.h.
struct Shortage {
  std::atomic<bool> told = false;           // that it is short, and not yet that it is enough
  std::atomic<std::uint64_t> again_ms = 0;  // not again before
};

}  // namespace ashlar::shm

// All of it is private to this process. It begins with a page.
struct ashlar_shm {
  using Bytes = ashlar::Bytes;

  // What malloc and free read, first of all the id.
  std::byte unused[ashlar::shm::offset_for_reading(1)];
  std::uint64_t id = 0;       // no other handle of this process ever has it; const, like the next
  std::uint32_t number = 0;   // its place in each thread's table of views
  std::byte* data = nullptr;  // const since opened, like the next
  std::atomic<std::uint64_t>* unit_entries = nullptr;
  ashlar::shm::Pages pages;

  ashlar::shm::Segment segment;
  ashlar::shm::Processes processes;
  ashlar::shm::HandleHints hints;
  ashlar::shm::Plan plan;
  ashlar::shm::Victims victims;
  ashlar::shm::HandPass hand_pass{};
  ashlar::Notices notices;
  ashlar::shm::Shortage shortage;

  Bytes data_offset(const void* p) const {
    return reinterpret_cast<std::uintptr_t>(p) - reinterpret_cast<std::uintptr_t>(data);
  }
  // As far as this process knows; refresh() learns of more.
  bool contains(Bytes offset) const { return offset < pages.data_bytes(); }
  std::atomic<std::uint64_t>& entry_at(Bytes offset) const {
    return unit_entries[offset / ashlar::kUnitBytes];
  }
  std::atomic<std::uint64_t>& entry(ashlar::UnitIndex unit) const { return unit_entries[unit.v]; }

  std::uint32_t lanes_end() const {
    const std::uint32_t end = state().lanes_end.load();
    return end < ashlar::shm::kLanes ? end : ashlar::shm::kLanes;
  }
  ashlar::shm::Lane& lane(std::uint32_t i) const {
    return (&segment.at<ashlar::shm::Lane>(ashlar::shm::Geometry::kLaneTable))[i];
  }
  ashlar::shm::LaneCursors& cursors(std::uint32_t lane) const {  // of a lane that was leased
    return (&segment.at<ashlar::shm::LaneCursors>(ashlar::shm::Geometry::kLaneCursors))[lane];
  }
  bool back_cursors(std::uint32_t lane) const {  // before it is leased
    using namespace ashlar::shm;
    const Offset at = Geometry::kLaneCursors + lane * sizeof(LaneCursors);
    return segment.back(ashlar::align_down(at, ashlar::kPageBytes), ashlar::kPageBytes) == 0;
  }
  ashlar::shm::LaneHandles& handles_of(std::uint32_t lane) const {  // one with pins_end
    return (&segment.at<ashlar::shm::LaneHandles>(ashlar::shm::Geometry::kLaneHandles))[lane];
  }
  // The entry of a handle; null: there never was such a handle.
  ashlar::shm::HandleWord* handle_word(std::uint32_t index) const {
    // The end only grows; a peer may have spoiled it.
    return index < segment.geometry().handle_count &&
                   index < state().handles_end.load(std::memory_order_relaxed)
               ? &segment.at<ashlar::shm::HandleWord>(segment.geometry().handles) + index
               : nullptr;
  }
  ashlar::shm::State& state() const {
    return segment.at<ashlar::shm::State>(ashlar::shm::Geometry::kState);
  }
  std::atomic<ashlar::shm::Offset>& root(std::uint32_t i) const {
    return (&segment.at<std::atomic<ashlar::shm::Offset>>(ashlar::shm::Geometry::kRootTable))[i];
  }

  // Offsets in the segment and addresses here; null and 0 for what lies elsewhere.
  void* pointer(ashlar::shm::Offset offset) const {
    const Bytes at = offset - segment.geometry().data;
    return at < Bytes{segment.max_chunks()} * ashlar::kChunkBytes ? data + at : nullptr;
  }
  ashlar::shm::Offset offset(const void* p) const {
    const Bytes at = data_offset(p);
    return at < Bytes{segment.max_chunks()} * ashlar::kChunkBytes ? segment.geometry().data + at
                                                                  : 0;
  }
};
