// SPDX-License-Identifier: MIT
// Killed at every instruction that takes, gives, publishes, names or closes; see stepped.h.
#include "stepped.h"

namespace ashlar::test {

TEST_SUITE_BEGIN("stepped");

TEST_CASE("killed in a first malloc: joining, leasing a lane, making a slab, growing") {
  Stage stage;
  kill_everywhere(stage.arena, {.act = [](Shared& a) { ashlar_shm_malloc(a, 64); },
                                .expected = stage.expect(0, 1)});
}

TEST_CASE(
    "killed in a malloc that hits, that takes slots again, and that goes on to the next word") {
  Stage stage;
  kill_everywhere(stage.arena, {.before = [](Shared& a) { ashlar_shm_malloc(a, 64); },
                                .act = [](Shared& a) { ashlar_shm_malloc(a, 64); },
                                .expected = stage.expect(1, 2)});
  Stage again;
  kill_everywhere(again.arena, {.before =
                                    [](Shared& a) {
                                      for (int i = 0; i < 64; i++) {
                                        ashlar_shm_free(a, ashlar_shm_malloc(a, 64));
                                      }
                                    },
                                .act = [](Shared& a) { ashlar_shm_malloc(a, 64); },
                                .expected = again.expect(0, 1)});
  Stage next;
  kill_everywhere(next.arena, {.before =
                                   [](Shared& a) {
                                     for (int i = 0; i < 64; i++) ashlar_shm_malloc(a, 64);
                                   },
                               .act = [](Shared& a) { ashlar_shm_malloc(a, 64); },
                               .expected = next.expect(64, 65)});
}

TEST_CASE("killed in a malloc of pages, and of a run over chunks") {
  Stage stage;
  kill_everywhere(stage.arena, {.before = [](Shared& a) { ashlar_shm_malloc(a, 64); },
                                .act = [](Shared& a) { ashlar_shm_malloc(a, 100'000); },
                                .expected = stage.expect(1, 2)});
  Stage span;
  kill_everywhere(span.arena, {.before = [](Shared& a) { ashlar_shm_malloc(a, 64); },
                               .act = [](Shared& a) { ashlar_shm_malloc(a, 3 * kMiB); },
                               .expected = span.expect(1, 2)});
}

TEST_CASE("killed in a memalign: a slot, pages, pages at a multiple of 256 KiB") {
  struct Request {
    Bytes alignment, bytes;
  };
  for (const Request& r :
       {Request{256, 300}, Request{kPageBytes, 3 * kPageBytes}, Request{256 * kKiB, kPageBytes}}) {
    Stage stage;
    kill_everywhere(stage.arena,
                    {.before = [](Shared& a) { ashlar_shm_malloc(a, 64); },
                     .act = [&](Shared& a) { ashlar_shm_memalign(a, r.alignment, r.bytes); },
                     .expected = stage.expect(1, 2)});
  }
}

// In a realloc that moves, old and new are both there for a while; the caller has one of them.
TEST_CASE("killed in a realloc: moved, grown and shrunk where it is") {
  struct Lengths {
    Bytes from, to;
  };
  for (const Lengths& length :
       {Lengths{64, 1000}, Lengths{1000, 64}, Lengths{20'000, 50'000}, Lengths{50'000, 20'000},
        Lengths{100'000, 200'000}, Lengths{200'000, 50'000}}) {
    CAPTURE(length.from);
    CAPTURE(length.to);
    Stage stage;
    void* block = nullptr;
    kill_everywhere(stage.arena,
                    {.before = [&](Shared& a) { block = ashlar_shm_malloc(a, length.from); },
                     .act = [&](Shared& a) { ashlar_shm_realloc(a, block, length.to); },
                     .expected = stage.expect(1, 2)});
  }
}

TEST_CASE("killed while it frees: its own, another's, pages, a run over chunks") {
  for (const Bytes bytes : {Bytes{64}, Bytes{20'000}, Bytes{100'000}, 3 * kMiB}) {
    Stage stage;
    void* block = nullptr;
    kill_everywhere(stage.arena, {.before = [&](Shared& a) { block = ashlar_shm_malloc(a, bytes); },
                                  .act = [&](Shared& a) { ashlar_shm_free(a, block); },
                                  .expected = stage.expect(0, 1)});
  }
  for (const std::size_t i : {1, 6, 7}) {
    Stage stage;
    Expected expected = stage.expect(-1, 0);
    expected.held = stage.held_but(stage.blocks[i]);
    kill_everywhere(
        stage.arena,
        {.before = [](Shared& a) { ashlar_shm_malloc(a, 64); },
         .act = [&](Shared& a) { ashlar_shm_free(a, there(a, stage, stage.blocks[i])); },
         .expected = {expected.least_blocks + 1, expected.most_blocks + 1, expected.held}});
  }
}

TEST_CASE("killed while a slab goes back to the buddy") {
  Stage stage;
  std::vector<void*> blocks;
  kill_everywhere(stage.arena, {.before =
                                    [&](Shared& a) {
                                      for (int i = 0; i < 3 * 13; i++)
                                        blocks.push_back(ashlar_shm_malloc(a, 20'000));
                                      while (blocks.size() > 14) {
                                        ashlar_shm_free(a, blocks.back());
                                        blocks.pop_back();
                                      }
                                    },
                                .act = [&](Shared& a) { ashlar_shm_free(a, blocks.back()); },
                                .expected = stage.expect(13, 14)});
}

TEST_CASE("killed while it takes over what others freed") {
  Stage stage;
  std::vector<void*> blocks;
  kill_everywhere(stage.arena, {.before =
                                    [&](Shared& a) {
                                      for (int i = 0; i < 64; i++) {
                                        blocks.push_back(ashlar_shm_malloc(a, 1024));
                                      }
                                      Child other([&] {
                                        for (int i = 0; i < 60; i++) ashlar_shm_free(a, blocks[i]);
                                      });
                                      other.wait();
                                    },
                                .act = [](Shared& a) { ashlar_shm_malloc(a, 1024); },
                                .expected = stage.expect(4, 5)});
}

TEST_CASE("killed in malloc_into: published, or nothing leaks") {
  for (const Bytes bytes : {Bytes{64}, Bytes{100'000}}) {
    Stage stage;
    const Bytes before = stage.now + 1;
    const ashlar_off slot = ashlar_shm_offset(stage.arena, stage.slot);
    kill_everywhere(stage.arena, {.before = [](Shared& a) { ashlar_shm_malloc(a, 64); },
                                  .act =
                                      [&](Shared& a) {
                                        ashlar_shm_malloc_into(
                                            a, bytes,
                                            static_cast<ashlar_off*>(ashlar_shm_pointer(a, slot)));
                                      },
                                  .expected = stage.expect(1, 2),
                                  .also =
                                      [&](Shared& a) {
                                        const ashlar_off block =
                                            *static_cast<ashlar_off*>(ashlar_shm_pointer(a, slot));
                                        REQUIRE(a.blocks() == before + (block != 0));
                                        if (block == 0) return;
                                        void* const p = ashlar_shm_pointer(a, block);
                                        REQUIRE(ashlar_shm_usable_size(a, p) >= bytes);
                                      }});
  }
}

TEST_CASE("killed in malloc_into, and another takes out what it published before it is recovered") {
  for (const Bytes bytes : {Bytes{64}, Bytes{100'000}}) {
    Stage stage;
    const ashlar_off at = ashlar_shm_offset(stage.arena, stage.slot);
    const auto slot = [&](Shared& a) {
      return static_cast<ashlar_off*>(ashlar_shm_pointer(a, at));
    };
    kill_everywhere(stage.arena,
                    {.before = [](Shared& a) { ashlar_shm_malloc(a, 64); },
                     .act = [&](Shared& a) { ashlar_shm_malloc_into(a, bytes, slot(a)); },
                     .expected = stage.expect(1, 1),
                     .first =
                         [&](Shared& a) {
                           const ashlar_off block = ashlar_shm_exchange(a, slot(a), 0);
                           ashlar_shm_free(a, ashlar_shm_pointer(a, block));
                         },
                     .also = [](Shared& a) { REQUIRE(a.stats().bad_frees == 0); }});
  }
}

TEST_CASE("killed while it enters a root: it is there or not, and nothing leaks") {
  Stage stage;
  const Bytes before = stage.now + 1;
  const ashlar_off value = ashlar_shm_offset(stage.arena, stage.slot);
  kill_everywhere(stage.arena, {.before = [](Shared& a) { ashlar_shm_malloc(a, 64); },
                                .act = [&](Shared& a) { ashlar_shm_root_set(a, "second", value); },
                                .expected = stage.expect(1, 2),
                                .data_bytes = kChunkBytes,
                                .also =
                                    [&](Shared& a) {
                                      const ashlar_off found = ashlar_shm_root_get(a, "second");
                                      REQUIRE((found == 0 || found == value));
                                      REQUIRE(ashlar_shm_root_get(a, "first") != 0);
                                      REQUIRE(a.blocks() <= before + 1);
                                      REQUIRE(ashlar_shm_root_set(a, "second", value) == 0);
                                      REQUIRE(a.blocks() == before + 1);
                                    }});
}

TEST_CASE("a scoped process that is killed leaves nothing") {
  Stage stage;
  kill_everywhere(stage.arena, {.before =
                                    [](Shared& a) {
                                      for (int i = 0; i < 20; i++) ashlar_shm_malloc(a, 500);
                                      ashlar_shm_malloc(a, 100'000);
                                    },
                                .act =
                                    [](Shared& a) {
                                      ashlar_shm_malloc(a, 64);
                                      ashlar_shm_malloc(a, 100'000);
                                    },
                                .expected = stage.expect(0, 0),
                                .flags = ASHLAR_SHM_SCOPED});
}

TEST_CASE("killed while it closes its handle") {
  Stage stage;
  for (const unsigned flags : {0u, unsigned{ASHLAR_SHM_SCOPED}}) {
    kill_everywhere(stage.arena, {.before =
                                      [](Shared& a) {
                                        for (int i = 0; i < 20; i++) ashlar_shm_malloc(a, 500);
                                      },
                                  .act = [](Shared& a) { ashlar_shm_close(a); },
                                  .expected = stage.expect(0, flags == 0 ? 20 : 20),
                                  .flags = flags});
  }
}

// The arena is as large as it gets before the other comes: growing would adopt what it leaves.
TEST_CASE("killed while it adopts the slabs of one who has left") {
  Stage stage;
  const auto fill_up = [](Shared& a, Bytes run) {
    while (a.stats().mapped < kArenaBytes || a.stats().longest_run >= run) a.take(kUnitBytes);
  };
  kill_everywhere(stage.arena, {.before =
                                    [&](Shared& a) {
                                      a.take(64);
                                      fill_up(a, 16 * kUnitBytes);
                                      Child([&] {
                                        Shared other(ashlar_shm_open_fd(ashlar_shm_fd(a), 0));
                                        for (int i = 0; i < 20; i++) other.take(20'000);
                                      }).wait();
                                      fill_up(a, 4 * kUnitBytes);
                                    },
                                .act = [](Shared& a) { ashlar_shm_malloc(a, 20'000); },
                                .expected = {stage.now + 20, stage.now + 200, stage.held},
                                .room_left = false});
}

namespace {

constexpr std::size_t kMoved = 4;  // of the stage's blocks
constexpr Bytes kMovedBytes = 1000;
constexpr int kOwn = 40;

// The victim's lane has room for the one block of its size that somebody else has.
void make_room(Shared& arena, const Stage& stage) {
  for (int i = 0; i < kOwn; i++) arena.take(kMovedBytes);
  REQUIRE(ashlar_shm_frag_hint(arena, there(arena, stage, stage.blocks[kMoved])) != 0);
}

}  // namespace

TEST_CASE("killed while it moves a block: it is at the old place or at the new one") {
  Stage stage;
  kill_everywhere(
      stage.arena,
      {.before = [&](Shared& a) { make_room(a, stage); },
       .act =
           [&](Shared& a) {
             if (ashlar_shm_frag_move(a, there(a, stage, stage.blocks[kMoved])) == nullptr) {
               std::abort();
             }
           },
       .expected = {stage.now + kOwn, stage.now + kOwn + 1, stage.held_but(stage.blocks[kMoved])},
       .data_bytes = kChunkBytes / 2});
}

TEST_CASE("killed while it moves what a slot names: the slot leads to the block") {
  Stage stage;
  fill(stage.blocks[kMoved], kMovedBytes, 1);
  *stage.slot = ashlar_shm_offset(stage.arena, stage.blocks[kMoved]);
  kill_everywhere(
      stage.arena,
      {.before = [&](Shared& a) { make_room(a, stage); },
       .act =
           [&](Shared& a) {
             auto* const slot = static_cast<ashlar_off*>(there(a, stage, stage.slot));
             if (ashlar_shm_frag_move_at(a, slot) == 0) std::abort();
           },
       .expected = {stage.now + kOwn, stage.now + kOwn + 1, stage.held_but(stage.blocks[kMoved])},
       .data_bytes = kChunkBytes / 2,
       .also =
           [&](Shared& a) {
             const auto* const slot = static_cast<ashlar_off*>(there(a, stage, stage.slot));
             void* const p = ashlar_shm_pointer(a, *slot);
             REQUIRE(ashlar_shm_usable_size(a, p) >= kMovedBytes);
             REQUIRE(is_filled(p, kMovedBytes, 1));
           }});
}

TEST_SUITE_END();

}  // namespace ashlar::test
