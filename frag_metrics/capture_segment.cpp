// SPDX-License-Identifier: MIT
// An arena in shared memory: from its header to the processes that use it.
#include <algorithm>
#include <cstring>
#include <memory>

#include "../shm_arena/layout.h"
#include "capture.h"
#include "capture_chunks.h"

namespace ashlar::frag {

namespace {

template <class T>
struct alignas(T) BytesOf {
  std::byte bytes[sizeof(T)];
  const T& value() const { return *reinterpret_cast<const T*>(bytes); }
};

class SegmentCapture {
 public:
  SegmentCapture(Target& target, const SegmentFile& file, const Limits& limits)
      : target_(target), file_(file), limits_(limits), reader_(target, snapshot_, limits.bytes) {}

  Snapshot take() {
    snapshot_.release = ASHLAR_VERSION;  // others have another layout
    snapshot_.classes = class_shapes();
    read_header();
    read_state();
    read_lanes();
    read_chunks();
    read_cursors();
    read_holders();
    reader_.read_residency();
    count_memory();
    target_.describe(snapshot_);
    return std::move(snapshot_);
  }

 private:
  [[noreturn]] void fail(const std::string& why) const { target_.complain("the arena " + why); }

  template <class T>
  void read(std::uint64_t offset, std::span<BytesOf<T>> out, const char* what) {
    if (!target_.read(offset, std::as_writable_bytes(out))) {
      fail(std::string("has ") + what + " that cannot be read");
    }
  }

  void read_header() {
    BytesOf<shm::Header> bytes;
    read(0, std::span(&bytes, 1), "a header");
    const shm::Header& header = bytes.value();
    if (header.magic != shm::Header::kMagic) fail("is none");
    const std::uint64_t sum = shm::hash_bytes(reinterpret_cast<const unsigned char*>(&header),
                                              offsetof(shm::Header, checksum));
    if (header.checksum != sum) fail("has a header that was changed");
    if (header.version != shm::Header::kVersion || header.layout_hash != shm::layout_hash()) {
      fail("is laid out in another way: this program reads version " +
           std::to_string(shm::Header::kVersion) + " of the same build");
    }
    if (header.max_chunks == 0 || header.max_chunks > shm::kMostChunks) fail("has no size");
    geometry_ = shm::Geometry(header.max_chunks);
    max_chunks_ = header.max_chunks;
    fixed_size_ = (header.flags & shm::Header::kFixedSize) != 0;
    if (header.segment_bytes != geometry_.end || file_.file_bytes != geometry_.end) {
      fail("is cut short or has grown: " + std::to_string(file_.file_bytes) + " bytes, not " +
           std::to_string(geometry_.end));
    }
  }

  void read_state() {
    BytesOf<shm::State> bytes;
    read(shm::Geometry::kState, std::span(&bytes, 1), "a state");
    const shm::State& state = bytes.value();
    // One of fixed size has memory for all of its chunks.
    chunks_ = fixed_size_ ? max_chunks_ : state.chunks.load();
    lanes_end_ = std::min(state.lanes_end.load(), shm::kLanes);
    places_end_ = std::min(state.places_end.load(), shm::kProcesses);
    if (chunks_ > max_chunks_) {
      fail("is corrupt: it has " + std::to_string(chunks_) + " chunks of at most " +
           std::to_string(max_chunks_));
    }
    if (chunks_ > limits_.chunks) fail("is too large: " + std::to_string(chunks_) + " chunks");
  }

  // All that were ever leased, so that index and number of a lane are the same.
  void read_lanes() {
    lanes_.resize(lanes_end_);
    read(shm::Geometry::kLaneTable, std::span(lanes_), "lanes");
    for (std::uint32_t l = 0; l < lanes_end_; l++) {
      const std::uint16_t index = reader_.lane_of((l + 1) * kTagGrain);
      snapshot_.lanes[index].leased =
          lanes_[l].value().state.load().kind == shm::LaneState::kLeased;
    }
  }

  void read_chunks() {
    words_.resize(chunks_);
    read(shm::Geometry::kChunkWords, std::span(words_), "chunks");
    if (!reader_.begin(geometry_.data, geometry_.table, chunks_)) {
      fail("has a unit table that cannot be read");
    }
    const auto meta = std::make_unique<BytesOf<shm::SharedChunk>>();
    for (std::uint32_t c = 0; c < chunks_; c++) {
      if (words_[c].value().state.load().backed == 0) {
        for (std::uint32_t i = 0; i < kPagesPerChunk; i++) {
          snapshot_.pages[c * kPagesPerChunk + i].use =
              fixed_size_ ? PageUse::free : PageUse::unusable;
        }
        continue;
      }
      read(geometry_.chunk_metadata + std::uint64_t{c} * sizeof(shm::SharedChunk),
           std::span(meta.get(), 1), "metadata");
      reader_.add(c, meta->value().core, 0);
    }
    reader_.finish();
  }

  // What a lane is about to take: not at rest in the slab, and in nobody's hands.
  void read_cursors() {
    for (std::uint32_t l = 0; l < lanes_end_; l++) {
      if (lanes_[l].value().state.load().kind != shm::LaneState::kLeased) continue;
      const std::uint16_t lane = reader_.lane_of((l + 1) * kTagGrain);
      BytesOf<shm::LaneCursors> cursors;
      read(shm::Geometry::kLaneCursors + std::uint64_t{l} * sizeof cursors, std::span(&cursors, 1),
           "cursors");
      for (std::uint32_t c = 0; c < kClassCount; c++) {
        const shm::LaneCursors::Shared& cursor = cursors.value().of_class[c];
        const std::uint64_t slab = geometry_.data + std::uint64_t{cursor.unit.load()} * kUnitBytes;
        const std::uint64_t first = std::uint64_t{cursor.word.load()} * 64;
        for (std::uint64_t avail = cursor.avail.load(); avail != 0; avail &= avail - 1) {
          const std::uint64_t slot = first + static_cast<std::uint64_t>(std::countr_zero(avail));
          reader_.mark_cached(lane, slab + slot * kSizeClasses[c].slot_bytes);
        }
      }
    }
  }

  void read_holders() {
    std::vector<BytesOf<shm::Process>> processes(places_end_);
    read(shm::Geometry::kProcessTable, std::span(processes), "processes");
    std::vector<Holder>& holders = snapshot_.holders.emplace();
    for (std::uint32_t i = 0; i < places_end_; i++) {
      const shm::Process& process = processes[i].value();
      const shm::ProcessState state = process.state.load();
      if (state.kind == shm::ProcessState::kFree) continue;
      Holder holder;
      holder.pid = process.pid.load();
      for (const auto& c : process.name) {
        const char letter = c.load();
        if (letter == '\0') break;
        holder.name += letter < ' ' || letter > '~' ? '?' : letter;
      }
      holder.alive =
          state.kind == shm::ProcessState::kAttached && target_.is_locked(shm::kPlaces + i);
      holder.scoped = state.scoped != 0;
      for (const auto& bytes : lanes_) {
        const shm::Lane& lane = bytes.value();
        const shm::LaneState lease = lane.state.load();
        if (lease.kind == shm::LaneState::kVacant || lease.process != i) continue;
        holder.lanes++;
        holder.held += lane.held_pages.load() * kPageBytes;
      }
      holders.push_back(std::move(holder));
    }
  }

  // A chunk gets its memory before anybody touches it, so what a tmpfs has allocated is in memory
  // although nobody has written there. On a disk, only what is cached is.
  void count_memory() {
    if (!file_.in_memory) return add_metadata(target_, 0, geometry_.data, snapshot_);
    std::uint64_t of_chunks = 0;
    for (Page& page : snapshot_.pages) {
      if (page.use == PageUse::unusable) continue;
      page.resident = !page.swapped;
      of_chunks += kPageBytes;
    }
    snapshot_.metadata_resident =
        file_.allocated_bytes - std::min(file_.allocated_bytes, of_chunks);
  }

  Target& target_;
  SegmentFile file_;
  Limits limits_;
  Snapshot snapshot_;
  ChunkReader reader_;
  shm::Geometry geometry_;
  std::uint32_t max_chunks_ = 0;
  bool fixed_size_ = false;
  std::uint32_t chunks_ = 0;
  std::uint32_t lanes_end_ = 0;
  std::uint32_t places_end_ = 0;
  std::vector<BytesOf<shm::Lane>> lanes_;
  std::vector<BytesOf<shm::ChunkWord>> words_;
};

}  // namespace

Snapshot capture_segment(Target& target, const SegmentFile& file, const Limits& limits) {
  return std::make_unique<SegmentCapture>(target, file, limits)->take();
}

}  // namespace ashlar::frag
