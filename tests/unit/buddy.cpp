// SPDX-License-Identifier: MIT
#include "buddy.h"

#include "unit.h"

namespace ashlar::test {

namespace {

constexpr auto kAll = [](PageIndex, PageCount) { return true; };

}  // namespace

TEST_SUITE_BEGIN("buddy");

TEST_CASE("new chunks are free, clean and whole") {
  const BuddyGround pages(3);
  const Buddy::Counts counts = pages.buddy.count();
  CHECK(counts.free_pages == 3 * kPagesPerChunk);
  CHECK(counts.free_dirty_pages == 0);
  CHECK(counts.longest_run == kPagesPerChunk);
  CHECK(sound(pages.buddy.check_invariants()) == "");
}

TEST_CASE("the lowest page that fits is taken") {
  BuddyGround pages(1);
  CHECK(pages.take(3) == 0);
  CHECK(pages.take(1) == 3);
  CHECK(pages.take(2) == 4);
  CHECK(pages.give(3));
  CHECK(pages.take(2) == 6);
  CHECK(pages.take(1) == 3);
}

TEST_CASE("a freed block merges with its free buddy") {
  BuddyGround pages(1);
  const std::uint32_t low = pages.take(256);
  const std::uint32_t high = pages.take(256);
  CHECK(pages.take(1) == kNone);
  CHECK(pages.give(low));
  CHECK(pages.take(512) == kNone);
  CHECK(pages.give(high));
  CHECK(pages.take(512) == 0);
}

TEST_CASE("a block takes exactly its pages and the tail stays free") {
  BuddyGround pages(1);
  CHECK(pages.take(5) == 0);
  CHECK(pages.free_pages() == 507);
  CHECK(pages.buddy.pages_at(PageIndex{0}).v == 5);
  CHECK(pages.take(507) == 5);
  CHECK(pages.free_pages() == 0);
}

TEST_CASE("a block starts at a multiple of its alignment") {
  for (std::uint32_t alignment = 1; alignment <= kPagesPerChunk; alignment *= 2) {
    BuddyGround pages(2);
    CHECK(pages.take(1) == 0);
    CAPTURE(alignment);
    CHECK(pages.take(3, alignment) == alignment);
    CHECK(sound(pages.buddy.check_invariants()) == "");
  }
}

TEST_CASE("a block with room lies in a run of free chunks twice as long, or nowhere") {
  BuddyGround pages(8);
  const auto take = [&](std::uint32_t count) {
    return pages.buddy.take_with_room(PageCount{count}, BlockKind::large).first.v;
  };
  CHECK(take(4 * 512 + 1) == kNone);
  CHECK(take(4 * 512) == 0);
  CHECK(take(2 * 512) == 5 * 512);  // one chunk more for each of the two
  CHECK(take(1) == kNone);
  CHECK(sound(pages.buddy.check_invariants()) == "");
}

TEST_CASE("a block in memory lies in the longest run of free chunks that are") {
  BuddyGround pages(8);
  const std::uint32_t wall = pages.take(512);
  const std::uint32_t clean = pages.take(3 * 512);
  const std::uint32_t dirty = pages.take(2 * 512);
  CHECK(pages.buddy.give(PageIndex{clean}, BlockKind::large, Contents::zero));
  CHECK(pages.give(dirty));
  const auto take = [&](std::uint32_t count) {
    return pages.buddy.take_in_memory(PageCount{count}, BlockKind::large).first.v;
  };
  CHECK(wall == 0);
  CHECK(take(2 * 512 + 1) == kNone);
  CHECK(take(2 * 512) == dirty);
  CHECK(take(1) == kNone);
  CHECK(sound(pages.buddy.check_invariants()) == "");
}

TEST_CASE("pages that were given back as zero are") {
  BuddyGround pages(1);
  CHECK(pages.give(pages.take(100)));
  CHECK(!pages.buddy.take(PageCount{100}, PageCount{1}, BlockKind::large).zero);
  CHECK(pages.buddy.give(PageIndex{0}, BlockKind::large, Contents::zero));
  CHECK(pages.buddy.dirty_pages() == 0);
  CHECK(pages.buddy.take(PageCount{100}, PageCount{1}, BlockKind::large).zero);
}

TEST_CASE("the fullest chunk with room serves") {
  BuddyGround pages(3);
  CHECK(pages.take(300) == 0);
  CHECK(pages.take(400) == 512);        // does not fit into chunk 0
  CHECK(pages.take(100) == 512 + 400);  // 112 pages are free there, 212 in chunk 0
  CHECK(pages.take(100) == 300);
  CHECK(pages.take(512) == 1024);
}

TEST_CASE("a slab goes where pages are in memory, before a fuller chunk") {
  BuddyGround pages(3);
  CHECK(pages.take(512) == 0);
  CHECK(pages.take(400) == 512);
  CHECK(pages.give(0));
  CHECK(pages.take(16) == 512 + 400);
  CHECK(pages.take(16, 16) == 0);
}

TEST_CASE("a block larger than a chunk takes chunks in a row and the head of the next") {
  BuddyGround pages(3);
  CHECK(pages.take(1000) == 0);
  CHECK(pages.take(24) == 1000);
  CHECK(pages.take(513) == kNone);
  CHECK(pages.take(512) == 1024);
  CHECK(pages.give(0));
  CHECK(pages.take(1001) == kNone);
  CHECK(pages.take(1000) == 0);
}

TEST_CASE("a block that fits nowhere changes nothing") {
  BuddyGround pages(2);
  CHECK(pages.take(1025) == kNone);
  CHECK(pages.take(1) == 0);
  CHECK(pages.take(1024) == kNone);
  CHECK(pages.free_pages() == 1023);
  CHECK(sound(pages.buddy.check_invariants()) == "");
}

TEST_CASE("an alignment above a chunk counts from the origin") {
  for (std::uint64_t origin : {0u, 512u, 1024u, 1536u}) {
    BuddyGround pages(8);
    const Block block = pages.buddy.take(PageCount{5}, PageCount{2048}, BlockKind::large, origin);
    REQUIRE(block);
    CHECK((origin + block.first.v) % 2048 == 0);
  }
  BuddyGround pages(2);
  CHECK(!pages.buddy.take(PageCount{1}, PageCount{2048}, BlockKind::large, 512));
}

TEST_CASE("giving refuses another kind, a page inside a block and a page in none") {
  BuddyGround pages(1);
  CHECK(pages.take(4, 1, BlockKind::internal) == 0);
  CHECK(!pages.give(0, BlockKind::large));
  CHECK(!pages.give(1, BlockKind::internal));
  CHECK(!pages.give(4, BlockKind::internal));
  CHECK(pages.give(0, BlockKind::internal));
  CHECK(!pages.give(0, BlockKind::internal));
  CHECK(pages.free_pages() == kPagesPerChunk);
}

TEST_CASE("a page tells what it begins and whether it is free") {
  BuddyGround pages(1);
  pages.take(2, 1, BlockKind::slab);
  CHECK(pages.buddy.kind_at(PageIndex{0}) == BlockKind::slab);
  CHECK(pages.buddy.kind_at(PageIndex{1}) == BlockKind::none);
  CHECK(!pages.buddy.is_free(PageIndex{1}));
  CHECK(pages.buddy.is_free(PageIndex{2}));
}

TEST_CASE("a block grows in place when what follows is free, also into the next chunk") {
  BuddyGround pages(2);
  bool zero = false;
  CHECK(pages.take(10) == 0);
  CHECK(pages.buddy.resize(PageIndex{0}, PageCount{600}, zero));
  CHECK(zero);
  CHECK(pages.take(1) == 600);
  CHECK(!pages.buddy.resize(PageIndex{0}, PageCount{601}, zero));
  CHECK(pages.buddy.pages_at(PageIndex{0}).v == 600);
  CHECK(pages.free_pages() == 1024 - 601);
  CHECK(sound(pages.buddy.check_invariants()) == "");
}

TEST_CASE("a block does not grow past the last chunk") {
  BuddyGround pages(1);
  bool zero = false;
  CHECK(pages.take(500) == 0);
  CHECK(!pages.buddy.resize(PageIndex{0}, PageCount{513}, zero));
  CHECK(pages.buddy.resize(PageIndex{0}, PageCount{512}, zero));
  CHECK(pages.free_pages() == 0);
}

TEST_CASE("a block that shrinks gives back its tail, dirty") {
  BuddyGround pages(1);
  bool zero = false;
  CHECK(pages.take(512) == 0);
  CHECK(pages.buddy.resize(PageIndex{0}, PageCount{100}, zero));
  CHECK(pages.buddy.count().free_dirty_pages == 412);
  CHECK(pages.buddy.resize(PageIndex{0}, PageCount{101}, zero));
  CHECK(!zero);
  CHECK(sound(pages.buddy.check_invariants()) == "");
}

TEST_CASE("fresh pages are zero, used ones are not, purged ones are again") {
  BuddyGround pages(1);
  const auto take = [&] { return pages.buddy.take(PageCount{8}, PageCount{1}, BlockKind::large); };
  CHECK(take().zero);
  CHECK(pages.give(0));
  CHECK(!take().zero);
  CHECK(pages.give(0));
  CHECK(pages.buddy.age_chunk(ChunkIndex{0}, true, kAll) == 8);
  CHECK(take().zero);
  CHECK(pages.give(0));
  // One dirty page is enough.
  CHECK(!pages.buddy.take(PageCount{20}, PageCount{1}, BlockKind::large).zero);
}

TEST_CASE("a page is purged when it was free for one whole pass") {
  BuddyGround pages(1);
  const auto pass = [&] { return pages.buddy.age_chunk(ChunkIndex{0}, false, kAll); };
  CHECK(pages.take(4) == 0);
  CHECK(pass() == 0);
  CHECK(pages.give(0));
  CHECK(pass() == 0);
  CHECK(pages.take(1) == 0);  // used meanwhile: starts afresh
  CHECK(pages.give(0));
  CHECK(pass() == 3);
  CHECK(pass() == 1);
  CHECK(pass() == 0);
  CHECK(pages.buddy.count().free_dirty_pages == 0);
  CHECK(sound(pages.buddy.check_invariants()) == "");
}

TEST_CASE("pages that were idle before they were given back are purged in the same pass") {
  BuddyGround pages(1);
  const auto pass = [&] { return pages.buddy.age_chunk(ChunkIndex{0}, false, kAll); };
  CHECK(pages.take(4) == 0);
  CHECK(pages.take(2) == 4);
  CHECK(pages.buddy.give(PageIndex{0}, BlockKind::large, Contents::idle));
  CHECK(pages.give(4));
  CHECK(sound(pages.buddy.check_invariants()) == "");
  CHECK(pass() == 4);
  CHECK(pages.buddy.dirty_pages() == 2);
  CHECK(pages.take(6) == 0);
  CHECK(pages.buddy.give(PageIndex{0}, BlockKind::large, Contents::idle));
  CHECK(pages.take(6) == 0);  // used meanwhile: starts afresh
  CHECK(pages.give(0));
  CHECK(pass() == 0);
  CHECK(sound(pages.buddy.check_invariants()) == "");
}

TEST_CASE("pages belong to nobody else while they are purged") {
  BuddyGround pages(1);
  pages.take(4);
  pages.take(2);
  pages.give(0);
  std::uint32_t calls = 0;
  pages.buddy.age_chunk(ChunkIndex{0}, true, [&](PageIndex first, PageCount count) {
    calls++;
    CHECK(first.v == 0);
    CHECK(count.v == 4);
    CHECK(!pages.buddy.is_free(first));
    CHECK(pages.take(1) == 6);
    return true;
  });
  CHECK(calls == 1);
  CHECK(pages.buddy.is_free(PageIndex{0}));
}

TEST_CASE("pages that could not be purged stay dirty") {
  BuddyGround pages(1);
  pages.take(4);
  pages.give(0);
  CHECK(pages.buddy.age_chunk(ChunkIndex{0}, true, [](PageIndex, PageCount) { return false; }) ==
        0);
  CHECK(pages.buddy.count().free_dirty_pages == 4);
  CHECK(pages.free_pages() == kPagesPerChunk);
  CHECK(sound(pages.buddy.check_invariants()) == "");
}

TEST_CASE("two purges at once leave the invariants whole") {
  BuddyGround pages(1);
  pages.take(4);
  pages.give(0);
  pages.take(8, 16);
  pages.give(16);
  pages.buddy.age_chunk(ChunkIndex{0}, false, kAll);  // all are aged now
  pages.buddy.age_chunk(ChunkIndex{0}, false, [&](PageIndex, PageCount) {
    pages.buddy.age_chunk(ChunkIndex{0}, true, kAll);
    return true;
  });
  CHECK(pages.buddy.count().free_dirty_pages == 0);
  CHECK(sound(pages.buddy.check_invariants()) == "");
}

TEST_CASE("a chunk that belongs to somebody else is never handed out") {
  BuddyGround pages(3);
  for (auto& word : pages.rows[1].free) word = 0;
  pages.summaries[1] = 0;
  pages.buddy.add_taken_chunk(ChunkIndex{1});
  CHECK(sound(pages.buddy.check_invariants()) == "");
  CHECK(pages.take(513) == kNone);
  CHECK(pages.take(512) == 0);
  CHECK(pages.take(512) == 1024);
  CHECK(pages.take(1) == kNone);
  CHECK(!pages.give(512));
}

TEST_CASE("small aligned blocks fit where no whole unit is free") {
  BuddyGround pages(1);
  while (pages.take(kPagesPerUnit, kPagesPerUnit) != kNone) {
  }
  for (std::uint32_t unit = 0; unit < kUnitsPerChunk; unit++) {  // free the first half of each
    CHECK(pages.give(unit * kPagesPerUnit));
    CHECK(pages.take(8) == unit * kPagesPerUnit);
    CHECK(pages.take(8) == unit * kPagesPerUnit + 8);
  }
  for (std::uint32_t unit = 0; unit < kUnitsPerChunk; unit++)
    CHECK(pages.give(unit * kPagesPerUnit));
  CHECK(pages.take(kPagesPerUnit, kPagesPerUnit) == kNone);
  CHECK(pages.take(1, kPagesPerUnit) == 0);
  CHECK(pages.take(8, 2 * kPagesPerUnit) == 32);
}

TEST_CASE("what was learnt from a search that failed is forgotten when pages come back") {
  for (std::uint32_t size = 1; size <= 256; size *= 2) {
    BuddyGround pages(1);
    std::vector<std::uint32_t> blocks;
    for (std::uint32_t first; (first = pages.take(size, size)) != kNone;) blocks.push_back(first);
    CHECK(blocks.size() == kPagesPerChunk / size);
    CHECK(pages.give(blocks[blocks.size() / 2]));
    CHECK(pages.take(2 * size, 2 * size) == kNone);
    CHECK(pages.take(size, size) == blocks[blocks.size() / 2]);
  }
}

TEST_CASE("a group of chunks without room is passed over until pages come back") {
  constexpr std::uint32_t kGroup = Buddy::kChunksPerGroup;
  BuddyGround pages(2 * kGroup);
  const std::uint32_t any_room = pages.groups[0];
  for (std::uint32_t c = 0; c < 2 * kGroup; c++) REQUIRE(pages.take(510) != kNone);
  CHECK(pages.take(16, 16) == kNone);
  CHECK(pages.groups[0] != any_room);
  CHECK(pages.groups[1] != any_room);
  CHECK(pages.buddy.check_invariants() == nullptr);
  CHECK(pages.take(2) == 510);  // what is left has room for two
  const std::uint32_t far = (kGroup + 3) * kPagesPerChunk;
  REQUIRE(pages.give(far));
  CHECK(pages.groups[0] != any_room);
  CHECK(pages.groups[1] == any_room);
  CHECK(pages.take(16, 16) == far);
  CHECK(pages.take(2 * kPagesPerChunk) == kNone);
  CHECK(pages.buddy.check_invariants() == nullptr);
}

TEST_CASE("room beyond the first thousand chunks that seem to have some is found") {
  constexpr std::uint32_t kChunks = 1200, kLast = (kChunks - 1) * kPagesPerChunk;
  BuddyGround pages(kChunks);
  for (std::uint32_t c = 0; c < kChunks - 1; c++) {
    for (const std::uint32_t count : {1u, 1u, 1u, 1u, 1u, 507u})
      REQUIRE(pages.take(count) != kNone);
  }
  REQUIRE(pages.take(2) == kLast);
  REQUIRE(pages.take(510) == kLast + 2);
  // Three pages apart everywhere but in the last chunk, which has two together.
  for (std::uint32_t c = 0; c < kChunks - 1; c++) {
    for (const std::uint32_t page : {0u, 2u, 4u}) REQUIRE(pages.give(c * kPagesPerChunk + page));
  }
  REQUIRE(pages.give(kLast));
  CHECK(pages.take(2) == kLast);
  CHECK(pages.buddy.check_invariants() == nullptr);
}

TEST_CASE("a block larger than a chunk begins where there is room, a much larger one at a chunk") {
  BuddyGround pages(24);
  CHECK(pages.take(100) == 0);
  CHECK(pages.take(513) == 100);
  CHECK(pages.take(8 * 512) == 2 * 512);
  CHECK(pages.take(9 * 512 - 1) == 10 * 512);
  // The piece in front of the second one, and one between the others.
  CHECK(pages.give(100));
  CHECK(pages.take(924) == 100);
  CHECK(pages.take(513) == 19 * 512 - 1);
  CHECK(sound(pages.buddy.check_invariants()) == "");
}

TEST_CASE("counts tell the kinds of blocks apart") {
  BuddyGround pages(2);
  pages.take(3, 1, BlockKind::large);
  pages.take(1100, 1, BlockKind::large);
  pages.take(16, 16, BlockKind::slab);
  pages.take(5, 1, BlockKind::internal);
  const Buddy::Counts counts = pages.buddy.count();
  CHECK(counts.large_blocks == 1);  // 1100 pages in a row are not there
  CHECK(counts.large_pages == 3);
  CHECK(counts.internal_pages == 5);
  CHECK(counts.free_pages == 1024 - 24);
  CHECK(counts.longest_run == 512);
}

// A crash may put the totals off; they only advise.
std::string sound_but_totals(const BuddyGround& pages) {
  const std::string found = sound(pages.buddy.check_invariants());
  return found.starts_with("buddy 4") ? "" : found;
}

TEST_CASE("a chunk is rebuilt from its block words alone") {
  BuddyGround pages(2);
  pages.take(4);
  const std::uint32_t lost = pages.take(5);
  pages.take(600, 1);  // no room for it in one chunk, nor in two
  pages.take(16, 16, BlockKind::slab);
  const std::uint64_t before = pages.free_pages();
  pages.rows[0].block[lost] = 0;  // its holder died before it said what it is
  pages.rows[0].free[7] = 0;
  pages.summaries[0] = 0;
  pages.buddy.rebuild_chunk(ChunkIndex{0}, 0);
  CHECK(sound_but_totals(pages) == "");
  CHECK(pages.free_pages() == before + 5);
}

TEST_CASE("a rebuilt chunk knows of the block that reaches into it") {
  BuddyGround pages(2);
  REQUIRE(pages.take(600) == 0);
  pages.rows[1].free[0] = ~std::uint64_t{0};
  pages.buddy.rebuild_chunk(ChunkIndex{1}, 600 - 512);
  CHECK(sound_but_totals(pages) == "");
  CHECK(pages.free_pages() == 1024 - 600);
}

TEST_CASE("a chunk without memory offers nothing") {
  BuddyGround pages(2);
  pages.buddy.clear_chunk(ChunkIndex{0});
  CHECK(pages.free_pages() == 512);
  CHECK(pages.take(1) == 512);
}

TEST_CASE("candidates come fullest first, and those without room not at all") {
  BuddyGround pages(4);
  REQUIRE(pages.buddy.claim_run(PageIndex{512}, PageCount{100}));
  REQUIRE(pages.buddy.claim_run(PageIndex{1024}, PageCount{400}));
  REQUIRE(pages.buddy.claim_run(PageIndex{1536}, PageCount{500}));
  std::uint64_t tried = 0;
  std::vector<std::uint32_t> order;
  for (;;) {
    const ChunkIndex c = pages.buddy.next_candidate(PageCount{50}, PageCount{1}, tried);
    if (c.v == kNone) break;
    order.push_back(c.v);
  }
  CHECK(order == std::vector<std::uint32_t>{2, 1, 0});
}

TEST_CASE("of two who change what a block is, the second fails") {
  BuddyGround pages(1);
  REQUIRE(pages.take(3) == 0);
  CHECK(pages.buddy.exchange_kind(PageIndex{0}, BlockKind::large, BlockKind::cached));
  CHECK_FALSE(pages.buddy.exchange_kind(PageIndex{0}, BlockKind::large, BlockKind::cached));
  CHECK(pages.give(0, BlockKind::cached));
}

TEST_CASE("check_invariants finds what is broken") {
  BuddyGround pages(1);
  CHECK(pages.take(4) == 0);
  ChunkRows& row = pages.rows[0];
  const auto broken_by = [&](auto& word, auto value) {
    const auto before = word.load();
    word = value;
    const std::string found = sound(pages.buddy.check_invariants()).substr(0, 7);
    word = before;
    CHECK(sound(pages.buddy.check_invariants()) == "");
    return found;
  };
  CHECK(broken_by(row.free[1], 0u) == "buddy 1");
  CHECK(broken_by(row.free[0], ~std::uint64_t{0}) == "buddy 1");
  CHECK(broken_by(row.block[2], row.block[0].load()) == "buddy 1");
  CHECK(broken_by(row.block[0], row.block[0].load() + 600) == "buddy 1");
  CHECK(broken_by(row.block[0], 0u) == "buddy 1");
  CHECK(broken_by(pages.summaries[0], pages.summaries[0].load() + 1) == "buddy 2");
  CHECK(broken_by(pages.summaries[0], pages.summaries[0].load() & ~(0x3ffu << 10)) == "buddy 2");
  CHECK(broken_by(pages.summaries[0], pages.summaries[0].load() & ~(1u << 20)) == "buddy 2");
  CHECK(broken_by(row.aged[3], 1u) == "buddy 3");
}

TEST_SUITE_END();

}  // namespace ashlar::test
