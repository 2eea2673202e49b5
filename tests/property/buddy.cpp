// SPDX-License-Identifier: MIT
// The buddy beside a model: a map of blocks, and a flag a page for "may be dirty".
#include "buddy.h"

#include <algorithm>
#include <functional>
#include <map>

#include "property.h"

namespace ashlar::test {

namespace {

struct Model {
  explicit Model(std::uint32_t chunks)
      : pages(chunks * kPagesPerChunk), taken(pages), dirty(pages) {}

  void take(std::uint32_t first, std::uint32_t count) {
    for (std::uint32_t i = first; i < first + count; i++) {
      REQUIRE(!taken[i]);
      taken[i] = true;
    }
  }
  void give(std::uint32_t first, std::uint32_t count, bool zero = false) {
    for (std::uint32_t i = first; i < first + count; i++) {
      taken[i] = false;
      dirty[i] = !zero;
    }
  }
  bool is_zero(std::uint32_t first, std::uint32_t count) const {
    return std::none_of(dirty.begin() + first, dirty.begin() + first + count,
                        [](bool d) { return d; });
  }
  // Whether a block would fit: within a chunk if it can; a large one from a chunk's first page.
  bool fits(std::uint32_t count, std::uint32_t alignment, std::uint64_t origin) const {
    const bool in_chunk = count <= kPagesPerChunk && alignment <= kPagesPerChunk;
    if (count >= 8 * kPagesPerChunk) alignment = std::max(alignment, kPagesPerChunk);
    std::uint32_t run = 0;  // free pages from here on
    for (std::uint32_t i = pages; i-- > 0;) {
      run = taken[i] ? 0 : run + 1;
      if (run < count || (origin + i) % alignment != 0) continue;
      if (!in_chunk || i % kPagesPerChunk + count <= kPagesPerChunk) return true;
    }
    return false;
  }

  // Whether so many chunks in a row are free, of each at least so many pages dirty.
  bool has_free_run(std::uint64_t chunks, std::uint32_t least_dirty) const {
    std::uint32_t run = 0;
    for (std::uint32_t at = 0; at < pages && run < chunks; at += kPagesPerChunk) {
      const auto end = at + kPagesPerChunk;
      const bool free = std::none_of(taken.begin() + at, taken.begin() + end, std::identity{});
      const auto dirty_pages = std::count(dirty.begin() + at, dirty.begin() + end, true);
      run = free && dirty_pages >= least_dirty ? run + 1 : 0;
    }
    return run >= chunks;
  }

  std::uint32_t pages;
  std::vector<bool> taken;
  std::vector<bool> dirty;
  std::map<std::uint32_t, std::pair<std::uint32_t, BlockKind>> blocks;  // first → pages, kind
};

struct Shape {
  const char* name;
  std::uint32_t chunks;
  std::uint32_t most_pages;   // of a block
  std::uint32_t fixed_pages;  // half of the blocks have this many, aligned to it
  std::uint32_t most_alignment;
};

void run(const Shape& shape, Random& random) {
  BuddyGround pages(shape.chunks);
  Model model(shape.chunks);
  const std::uint64_t origin = kPagesPerChunk * random.below(4);
  auto& blocks = model.blocks;
  const auto random_block = [&] { return std::next(blocks.begin(), random.below(blocks.size())); };
  std::uint32_t give_percent = 40;

  for (std::uint32_t step = 0; step < steps(10'000); step++) {
    if (step % 500 == 0) give_percent = random.between(30, 60);  // fills up and drains
    const std::uint32_t what = random.below(100);
    if (what < give_percent && !blocks.empty()) {
      const auto block = random_block();
      const auto [first, info] = *block;
      trace.step("give %u", first);
      const BlockKind other = info.second == BlockKind::large ? BlockKind::slab : BlockKind::large;
      REQUIRE(!pages.give(first, other));
      if (info.first > 1) REQUIRE(!pages.give(first + info.first - 1, info.second));
      const auto contents =
          static_cast<Contents>(random.between(0, static_cast<std::uint32_t>(Contents::zero)));
      REQUIRE(pages.buddy.give(PageIndex{first}, info.second, contents));
      REQUIRE(!pages.give(first, info.second));
      model.give(first, info.first, contents == Contents::zero);
      blocks.erase(block);
    } else if (what < 45 && !blocks.empty()) {
      const std::uint32_t count = random.up_to(shape.most_pages);
      const bool in_memory = random.chance(50);
      trace.step("take %u %s", count, in_memory ? "in memory" : "with room");
      const Block block = in_memory
                              ? pages.buddy.take_in_memory(PageCount{count}, BlockKind::large)
                              : pages.buddy.take_with_room(PageCount{count}, BlockKind::large);
      const std::uint64_t chunks = divide_up(count, kPagesPerChunk);
      REQUIRE(static_cast<bool>(block) == (in_memory
                                               ? model.has_free_run(chunks, kPagesPerChunk / 2)
                                               : model.has_free_run(2 * chunks, 0)));
      if (block) {
        REQUIRE(block.first.v % kPagesPerChunk == 0);
        REQUIRE(block.zero == model.is_zero(block.first.v, count));
        model.take(block.first.v, count);
        blocks[block.first.v] = {count, BlockKind::large};
      }
    } else if (what < 70 || blocks.empty()) {
      const bool fixed = shape.fixed_pages != 0 && random.chance(50);
      const std::uint32_t count = fixed ? shape.fixed_pages : random.up_to(shape.most_pages);
      const std::uint32_t alignment = fixed ? shape.fixed_pages
                                      : random.chance(70)
                                          ? 1
                                          : std::bit_floor(random.up_to(shape.most_alignment));
      constexpr BlockKind kKinds[] = {BlockKind::slab, BlockKind::large, BlockKind::internal};
      const auto kind = kKinds[random.between(0, 2)];
      trace.step("take %u at a multiple of %u", count, alignment);
      const Block block = pages.buddy.take(PageCount{count}, PageCount{alignment}, kind, origin);
      REQUIRE(static_cast<bool>(block) == model.fits(count, alignment, origin));
      if (block) {
        REQUIRE((origin + block.first.v) % alignment == 0);
        REQUIRE(block.zero == model.is_zero(block.first.v, count));
        model.take(block.first.v, count);
        blocks[block.first.v] = {count, kind};
      }
    } else if (what < 90) {
      auto& [first, info] = *random_block();
      const std::uint32_t old_count = info.first;
      const std::uint32_t count =
          random.chance(50) ? random.up_to(shape.most_pages) : random.between(1, old_count + 5);
      trace.step("resize %u from %u to %u", first, old_count, count);
      bool room = first + count <= model.pages;
      for (std::uint32_t i = first + old_count; room && i < first + count; i++)
        room = !model.taken[i];
      bool zero = false;
      REQUIRE(pages.buddy.resize(PageIndex{first}, PageCount{count}, zero) == room);
      if (room && count > old_count) {
        REQUIRE(zero == model.is_zero(first + old_count, count - old_count));
        model.take(first + old_count, count - old_count);
      } else if (count < old_count) {
        model.give(first + count, old_count - count);
      }
      if (room) info.first = count;
    } else if (what < 93) {
      const ChunkIndex chunk{random.below(shape.chunks)};
      const bool all = random.chance(20);
      const bool works = random.chance(80);
      trace.step("purge chunk %u%s%s", chunk.v, all ? ", all" : "", works ? "" : ", in vain");
      pages.buddy.age_chunk(chunk, all, [&](PageIndex first, PageCount count) {
        for (std::uint32_t i = first.v; i < first.v + count.v; i++) {
          REQUIRE(!model.taken[i]);
          REQUIRE(model.dirty[i]);
          if (works) model.dirty[i] = false;
        }
        return works;
      });
      if (all && works) {
        for (std::uint32_t i = first_page(chunk).v; i < first_page(chunk).v + kPagesPerChunk; i++) {
          REQUIRE((model.taken[i] || !model.dirty[i]));
        }
      }
    }
    REQUIRE(sound(pages.buddy.check_invariants()) == "");
    if (step % 16 != 0) continue;
    Buddy::Counts wanted;
    for (const auto& [first, info] : blocks) {
      REQUIRE(pages.buddy.kind_at(PageIndex{first}) == info.second);
      REQUIRE(pages.buddy.pages_at(PageIndex{first}).v == info.first);
      if (info.second == BlockKind::large) {
        wanted.large_blocks++;
        wanted.large_pages += info.first;
      } else if (info.second == BlockKind::internal) {
        wanted.internal_pages += info.first;
      }
    }
    std::uint32_t run = 0;
    for (std::uint32_t i = 0; i < model.pages; i++) {
      REQUIRE(pages.buddy.is_free(PageIndex{i}) == !model.taken[i]);
      wanted.free_pages += !model.taken[i];
      wanted.free_dirty_pages += !model.taken[i] && model.dirty[i];
      run = model.taken[i] ? 0 : i % kPagesPerChunk == 0 ? 1 : run + 1;
      wanted.longest_run = std::max(wanted.longest_run, run);
    }
    std::uint32_t next = 0;  // runs of free and dirty pages, complete and ascending
    const auto is_idle = [&](std::uint32_t i) { return !model.taken[i] && model.dirty[i]; };
    pages.buddy.for_each_dirty_run([&](PageIndex first, PageCount count) {
      while (next < first.v) REQUIRE(!is_idle(next++));
      while (next < first.v + count.v) REQUIRE(is_idle(next++));
    });
    while (next < model.pages) REQUIRE(!is_idle(next++));
    const Buddy::Counts counts = pages.buddy.count();
    REQUIRE(counts.free_pages == wanted.free_pages);
    REQUIRE(counts.free_dirty_pages == wanted.free_dirty_pages);
    REQUIRE(counts.large_pages == wanted.large_pages);
    REQUIRE(counts.large_blocks == wanted.large_blocks);
    REQUIRE(counts.internal_pages == wanted.internal_pages);
    REQUIRE(counts.longest_run == wanted.longest_run);
  }
}

}  // namespace

TEST_SUITE_BEGIN("buddy");

TEST_CASE("any sequence of takes, gives, resizes and purges agrees with the model") {
  constexpr Shape kShapes[] = {
      {"single pages", 1, 1, 0, 1},
      {"units", 2, 20, kPagesPerUnit, kPagesPerUnit},
      {"slabs of four units", 3, 80, 4 * kPagesPerUnit, 64},
      {"small blocks at large alignments", 1, 6, kPagesPerUnit, 128},
      {"within a chunk", 2, kPagesPerChunk, 0, kPagesPerChunk},
      {"runs over several chunks", 8, 4 * kPagesPerChunk, 0, 4 * kPagesPerChunk},
      {"everything", 5, 2 * kPagesPerChunk, kPagesPerUnit, 2 * kPagesPerChunk},
  };
  for (const Shape& shape : kShapes) {
    CAPTURE(std::string(shape.name));
    for_seeds(4, [&](Random& random) { run(shape, random); });
  }
}

TEST_SUITE_END();

}  // namespace ashlar::test
