// SPDX-License-Identifier: MIT
// Lanes and large blocks in one arena beside a model: what is held, by whom, with which contents.
// With one view of the memory, and with two at different addresses.
#include "arena.h"

#include <cstring>
#include <map>

#include "property.h"

namespace ashlar::test {

namespace {

struct Object {
  Bytes offset;  // from the first byte of data, the same in every view
  Bytes bytes;
  std::uint64_t stamp;
  std::uint32_t lane;  // kNone: a large block
  ClassIndex c;
};

struct Shape {
  const char* name;
  std::uint32_t chunks;
  std::uint32_t lanes;
  std::uint32_t classes;     // of the first ones, and of the last
  std::uint32_t most_slots;  // at once
  std::uint32_t most_pages;  // of large blocks; 0: none
  Bytes most_alignment;
};

// The same memory, mapped `views` times.
class Views {
 public:
  Views(std::uint32_t chunks, std::uint32_t views) {
    const Bytes bytes = Arena::region_bytes(chunks);
    const int fd = views > 1 ? ::memfd_create("arena", 0) : -1;
    if (fd >= 0) REQUIRE(::ftruncate(fd, static_cast<off_t>(bytes)) == 0);
    for (std::uint32_t v = 0; v < views; v++) {
      grounds_.push_back(std::make_unique<Ground>(bytes, fd));
      arenas_.push_back(std::make_unique<Arena>());
      if (v == 0) {
        REQUIRE(arena(0).create(grounds_[0]->region()) == os::Commit::done);
      } else {
        arena(v).attach(grounds_[v]->region());
      }
    }
    if (fd >= 0) ::close(fd);
  }
  std::uint32_t count() const { return static_cast<std::uint32_t>(arenas_.size()); }
  Arena& arena(std::uint32_t v) const { return *arenas_[v]; }

 private:
  std::vector<std::unique_ptr<Ground>> grounds_;
  std::vector<std::unique_ptr<Arena>> arenas_;
};

class Run {
 public:
  Run(const Shape& shape, std::uint32_t views, Random& random)
      : shape_(shape), random_(random), views_(shape.chunks, views) {
    for (std::uint32_t i = 0; i < shape.lanes; i++) lanes_.push_back(add_lane(any(), i + 1).index);
  }

  void go() {
    std::uint32_t give_percent = 50;
    for (std::uint32_t step = 0; step < steps(6000); step++) {
      if (step % 400 == 0) give_percent = random_.between(25, 65);
      const std::uint32_t what = random_.below(100);
      if (what < give_percent) {
        random_.chance(75) ? give_some() : give_pages();
      } else if (what < 85) {
        shape_.most_pages == 0 || random_.chance(75) ? take_some() : take_pages();
      } else if (what < 90) {
        resize();
      } else if (what < 94) {
        drain();
      } else if (what < 97) {
        purge();
      } else if (what < 98 && dies_) {
        recover();
      } else if (!full_) {
        grow_by(1);
      }
      if (step % 8 == 0) check();
    }
    while (!objects_.empty()) give_some();
    for (std::uint32_t lane = 0; lane < shape_.lanes; lane++) drain_lane(lane);
    check();
    if (dies_) return;  // recovery keeps slabs that it finds empty
    // An empty slab a lane and class is all that may be left.
    std::map<std::pair<std::uint64_t, std::uint32_t>, std::uint32_t> left;
    any().for_each_slab([&](const Slab& slab, std::uint64_t tag) {
      REQUIRE(slab.is_empty());
      REQUIRE(++left[{tag, slab.descriptor().size_class}] == 1);
    });
  }

 private:
  Arena& any() { return views_.arena(random_.below(views_.count())); }
  LaneSlabs& lane_in(const Arena& arena, std::uint32_t lane) { return arena.lane_at(lanes_[lane]); }
  void* at(const Arena& arena, const Object& object) { return arena.data() + object.offset; }
  ClassIndex random_class() {
    const std::uint32_t c = random_.below(shape_.classes);
    return {random_.chance(50) ? c : kClassCount - 1 - c};
  }

  void hold(Arena& arena, void* p, Bytes bytes, std::uint32_t lane, ClassIndex c) {
    Object object{static_cast<Bytes>(static_cast<std::byte*>(p) - arena.data()), bytes,
                  random_.next(), lane, c};
    // Nothing overlaps it, by the model's own account.
    const auto next = by_offset_.lower_bound(object.offset);
    if (next != by_offset_.end()) REQUIRE(next->first >= object.offset + bytes);
    if (next != by_offset_.begin()) {
      REQUIRE(std::prev(next)->first + std::prev(next)->second <= object.offset);
    }
    by_offset_[object.offset] = bytes;
    fill(p, bytes, object.stamp);
    objects_.push_back(object);
  }
  Object release(std::size_t i) {
    const Object object = objects_[i];
    objects_[i] = objects_.back();
    objects_.pop_back();
    by_offset_.erase(object.offset);
    REQUIRE(is_filled(at(any(), object), object.bytes, object.stamp));
    return object;
  }

  void take_some() {
    Arena& arena = any();
    const std::uint32_t lane = random_.below(shape_.lanes);
    const ClassIndex c = random_class();
    const std::uint32_t want = random_.up_to(shape_.most_slots);
    trace.step("lane %u takes %u of class %u", lane, want, c.v);
    std::vector<void*> slots(want);
    const std::uint32_t taken = arena.take_slots(lane_in(arena, lane), c, slots.data(), want);
    REQUIRE(taken <= want);
    if (taken == 0 && !full_) grow_by(size_class(c).slab_bytes / kPageBytes);
    for (std::uint32_t i = 0; i < taken; i++)
      hold(arena, slots[i], size_class(c).slot_bytes, lane, c);
  }

  // Up to some slots of one class and lane, by their owner or by others; or large blocks.
  void give_some() {
    if (objects_.empty()) return;
    Arena& arena = any();
    const std::size_t first = random_.below(objects_.size());
    const Object kind = objects_[first];
    if (kind.lane == kNone) return give_pages(first);
    const bool by_owner = random_.chance(50);
    const bool mixed = !by_owner && random_.chance(50);
    const std::uint32_t most = random_.up_to(shape_.most_slots);
    std::vector<void*> slots;
    for (std::size_t i = first; i < objects_.size() && slots.size() < most;) {
      const Object& object = objects_[i];
      const bool same = object.lane == kind.lane && object.c == kind.c;
      if (same || (mixed && object.lane != kNone)) {
        slots.push_back(at(arena, object));
        release(i);
      } else {
        i++;
      }
    }
    const auto count = static_cast<std::uint32_t>(slots.size());
    trace.step("%u slots of lane %u, class %u, are given back by %s", count, kind.lane, kind.c.v,
               by_owner ? "their owner" : "others");
    if (by_owner) {
      arena.give_slots(lane_in(arena, kind.lane), kind.c, slots.data(), count);
    } else {
      arena.give_remote(slots.data(), count);
    }
  }

  void take_pages() {
    Arena& arena = any();
    const PageCount pages{random_.up_to(shape_.most_pages)};
    const auto most = static_cast<std::uint32_t>(shape_.most_alignment / kPageBytes);
    const Bytes alignment =
        random_.chance(60) ? kPageBytes : std::bit_floor(random_.up_to(most)) * kPageBytes;
    trace.step("%u pages are taken at a multiple of %zu", pages.v, alignment);
    bool zero = false;
    void* const p = arena.take_pages(pages, alignment, BlockKind::large, zero);
    if (p == nullptr) {
      if (!full_) grow_by(pages.v, alignment);
      return;
    }
    if (views_.count() == 1) REQUIRE(reinterpret_cast<std::uintptr_t>(p) % alignment == 0);
    if (zero) require_zero(p, bytes_of(pages));
    hold(arena, p, bytes_of(pages), kNone, {});
  }

  void give_pages() {
    for (std::size_t i = 0; i < objects_.size(); i++) {
      if (objects_[i].lane == kNone) return give_pages(i);
    }
    give_some();
  }
  void give_pages(std::size_t i) {
    Arena& arena = any();
    const Object object = release(i);
    trace.step("the block at %#zx is given back", object.offset);
    REQUIRE(arena.give_pages(at(arena, object), BlockKind::large));
  }

  void resize() {
    for (std::size_t i = 0; i < objects_.size(); i++) {
      if (objects_[i].lane != kNone || random_.chance(50)) continue;
      Arena& arena = any();
      const PageCount pages{random_.up_to(shape_.most_pages)};
      const Object object = release(i);
      trace.step("the block at %#zx is resized to %u pages", object.offset, pages.v);
      bool zero = false;
      void* const p = at(arena, object);
      const bool resized = arena.resize_pages(p, pages, zero);
      const Bytes bytes = resized ? bytes_of(pages) : object.bytes;
      if (resized && zero && bytes > object.bytes) {
        require_zero(static_cast<std::byte*>(p) + object.bytes, bytes - object.bytes);
      }
      REQUIRE((resized || bytes_of(pages) > object.bytes));
      return hold(arena, p, bytes, kNone, {});
    }
  }

  void require_zero(const void* p, Bytes bytes) {
    const auto* const words = static_cast<const std::uint64_t*>(p);
    REQUIRE(std::all_of(words, words + bytes / 8, [](std::uint64_t w) { return w == 0; }));
  }

  void drain() { drain_lane(random_.below(shape_.lanes)); }
  void drain_lane(std::uint32_t lane) {
    Arena& arena = any();
    trace.step("lane %u drains its inbox", lane);
    arena.drain_inbox(lane_in(arena, lane));
    REQUIRE(!arena.drain_inbox(lane_in(arena, lane)));
  }

  void purge() {
    // Pages of a file stay when one process lets go of them.
    if (views_.count() != 1) return;
    const bool all = random_.chance(30);
    trace.step("purge free pages and a lane's slabs%s", all ? ", all" : "");
    const auto which = all ? Arena::Purge::at_once : Arena::Purge::aged;
    any().purge(which);
    const std::uint32_t lane = random_.below(shape_.lanes);
    any().purge_slabs(lane_in(any(), lane), which);
  }

  // The lane's owner died; what it kept in its lists is anything.
  void recover() {
    Arena& arena = any();
    const std::uint32_t n = random_.below(shape_.lanes);
    LaneSlabs& lane = lane_in(arena, n);
    trace.step("lane %u is recovered", n);
    arena.for_each_slab([&](const Slab& slab, std::uint64_t tag) {
      if (tag != lane.tag) return;
      SlabDescriptor& d = slab.descriptor();
      d.used = random_.below(5000);
      d.hint = random_.below(100);
      d.next = random_.below(1000);
      d.prev = random_.below(1000);
      d.list = static_cast<std::uint8_t>(random_.below(9));
      d.holes = random_.next();
    });
    std::memset(lane.nonempty, 0xa5, sizeof lane.nonempty);
    std::memset(lane.head, 0x5a, sizeof lane.head);
    arena.recover_lane(lane);
  }

  void grow_by(std::uint32_t pages, Bytes alignment = kPageBytes) {
    trace.step("grow for %u pages", pages);
    Arena& arena = views_.arena(0);  // growing is not for several views yet
    full_ = !grow(arena, pages, alignment) && arena.chunks() == shape_.chunks;
    for (std::uint32_t v = 0; v < views_.count(); v++) views_.arena(v).refresh();
  }

  void check() {
    Arena& arena = any();
    REQUIRE(sound(arena.check_invariants()) == "");
    if (objects_.empty()) return;
    for (int i = 0; i < 10; i++) {
      const Object& object = objects_[random_.below(objects_.size())];
      const auto* const p = static_cast<std::byte*>(at(arena, object));
      const Place place = arena.locate(p + random_.below(object.bytes));
      REQUIRE(place.kind == (object.lane == kNone ? Place::Kind::large : Place::Kind::slot));
      REQUIRE(place.begin == p);
      REQUIRE(place.bytes == object.bytes);
      REQUIRE(is_filled(p, object.bytes, object.stamp));
    }
  }

  const Shape& shape_;
  Random& random_;
  Views views_;
  std::vector<PageIndex> lanes_;
  std::vector<Object> objects_;
  std::map<Bytes, Bytes> by_offset_;  // offset → bytes
  bool full_ = false;
  bool dies_ = random_.chance(50);
};

constexpr Shape kShapes[] = {
    {"one lane, two classes", 4, 1, 1, 300, 0, 0},
    {"small classes in a full region", 2, 3, 3, 300, 40, kUnitBytes},
    {"all classes", 24, 3, kClassCount, 60, 64, kUnitBytes},
    {"large blocks and alignments", 32, 2, 4, 20, 3 * kPagesPerChunk, 8 * kMiB},
    {"many lanes in little memory", 6, 12, 6, 40, 100, kChunkBytes},
};

}  // namespace

TEST_SUITE_BEGIN("arena");

TEST_CASE("objects of lanes and large blocks never overlap and keep their contents") {
  for (const Shape& shape : kShapes) {
    CAPTURE(std::string(shape.name));
    for_seeds(4, [&](Random& random) { Run(shape, 1, random).go(); });
  }
}

TEST_CASE("an arena that is mapped at two addresses is one arena") {
  for (const Shape& shape : kShapes) {
    CAPTURE(std::string(shape.name));
    for_seeds(4, [&](Random& random) { Run(shape, 2, random).go(); });
  }
}

TEST_SUITE_END();

}  // namespace ashlar::test
