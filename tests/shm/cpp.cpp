// SPDX-License-Identifier: MIT
// The C++ side: pointers, containers and named objects, seen by processes at other addresses.
#include <ashlar/shm.hpp>

#include <boost/container/flat_map.hpp>
#include <boost/container/list.hpp>
#include <boost/container/map.hpp>
#include <boost/container/string.hpp>
#include <boost/unordered_map.hpp>

#include <atomic>
#include <string>
#include <vector>

#include "shm.h"

namespace ashlar::test {

namespace {

template <class T>
using Vector = std::vector<T, shm_allocator<T>>;
using String = boost::container::basic_string<char, std::char_traits<char>, shm_allocator<char>>;

shm_arena another(const shm_arena& arena) { return shm_arena::open_fd(ashlar_shm_fd(arena)); }

}  // namespace

TEST_SUITE_BEGIN("cpp");

TEST_CASE("an offset pointer behaves as a pointer") {
  int values[3] = {1, 2, 3};
  offset_ptr<int> p = values;
  CHECK(*p == 1);
  CHECK(p[2] == 3);
  CHECK(*++p == 2);
  CHECK(*(p + 1) == 3);
  CHECK(p - offset_ptr<int>(values) == 1);
  CHECK(p > offset_ptr<int>(values));
  const offset_ptr<int> copy = p;
  CHECK(copy == p);
  const offset_ptr<const int> constant = p;
  CHECK(*constant == 2);
  const offset_ptr<void> untyped = p;
  CHECK(static_cast<offset_ptr<int>>(untyped) == p);
  p = nullptr;
  CHECK_FALSE(p);
  CHECK(p == nullptr);
  CHECK(offset_ptr<int>() == p);
  CHECK(offset_ptr<int>::pointer_to(values[1]).get() == values + 1);
  CHECK(std::to_address(copy) == values + 1);
}

TEST_CASE("standard containers lie in an arena, and are read at another address") {
  const shm_arena arena = shm_arena::create_anonymous(64 * kMiB);
  const shm_arena there = another(arena);
  REQUIRE(ashlar_shm_base(arena) != ashlar_shm_base(there));
  auto* const strings = arena.construct<Vector<String>>("strings", arena.allocator<String>());
  REQUIRE(strings != nullptr);
  for (int i = 0; i < 1000; i++) {
    strings->emplace_back(std::string(static_cast<std::size_t>(i % 60), 'a' + i % 26).c_str(),
                          arena.allocator<char>());
  }
  auto* const seen = there.find<Vector<String>>("strings");
  REQUIRE(seen->size() == 1000);
  for (int i = 0; i < 1000; i++) {
    CHECK((*seen)[static_cast<std::size_t>(i)].size() == static_cast<std::size_t>(i % 60));
  }
  // And changed there: its allocator finds the handle of that mapping.
  seen->emplace_back("one more, too long to be kept inside the string", there.allocator<char>());
  CHECK(strings->back() == seen->back());
  CHECK(there.destroy<Vector<String>>("strings"));
  ashlar_shm_stats stats;
  ashlar_shm_stat(arena, &stats);
  CHECK(stats.small_blocks + stats.large_blocks == 1);  // the name
}

TEST_CASE("Boost's maps, lists and hash tables do, too") {
  const shm_arena arena = shm_arena::create_anonymous(64 * kMiB);
  const shm_arena there = another(arena);
  namespace bc = boost::container;
  using Pair = std::pair<const int, int>;
  using Map = bc::map<int, int, std::less<int>, shm_allocator<Pair>>;
  using Flat = bc::flat_map<int, int, std::less<int>, shm_allocator<std::pair<int, int>>>;
  using List = bc::list<int, shm_allocator<int>>;
  using Hash =
      boost::unordered_map<int, int, boost::hash<int>, std::equal_to<int>, shm_allocator<Pair>>;
  const auto in = arena.allocator<int>();
  Map& map = *arena.find_or_construct<Map>("map", in);
  Flat& flat = *arena.find_or_construct<Flat>("flat", in);
  List& list = *arena.find_or_construct<List>("list", in);
  Hash& hash = *arena.construct<Hash>("hash", 16u, boost::hash<int>(), std::equal_to<int>(),
                                      shm_allocator<Pair>(in));
  for (int i = 0; i < 2000; i++) {
    map[i] = flat[i] = hash[i] = i * i;
    list.push_back(i);
  }
  for (int i = 0; i < 2000; i += 2) {
    map.erase(i);
    hash.erase(i);
  }
  const Map& seen = *there.find<Map>("map");
  CHECK(seen.size() == 1000);
  for (const auto& [key, value] : seen) REQUIRE(value == key * key);
  CHECK(there.find<Flat>("flat")->at(77) == 77 * 77);
  CHECK(there.find<List>("list")->back() == 1999);
  CHECK(there.find<Hash>("hash")->at(77) == 77 * 77);
  CHECK(arena.destroy<Map>("map"));
  CHECK(arena.destroy<Flat>("flat"));
  CHECK(arena.destroy<List>("list"));
  CHECK(arena.destroy<Hash>("hash"));
  ashlar_shm_stats stats;
  ashlar_shm_stat(arena, &stats);
  CHECK(stats.small_blocks + stats.large_blocks == 4);
}

TEST_CASE("of processes that construct one object, one does") {
  const shm_arena arena = shm_arena::create_anonymous(16 * kMiB);
  auto* const made = arena.construct<std::atomic<int>>("made", 0);
  std::vector<std::unique_ptr<Child>> children;
  for (int i = 0; i < 8; i++) {
    children.push_back(std::make_unique<Child>([&] {
      for (int n = 0; n < 100; n++) {
        const std::string name = "object " + std::to_string(n);
        if (arena.construct<int>(name.c_str(), n) != nullptr) ++*made;
        if (*arena.find_or_construct<int>(name.c_str(), n) != n) ::_exit(1);
      }
    }));
  }
  for (auto& child : children) CHECK(child->wait() == 0);
  CHECK(*made == 100);
  CHECK(arena.construct<int>("made", 1) == nullptr);
  CHECK(arena.destroy<std::atomic<int>>("made"));
  CHECK_FALSE(arena.destroy<std::atomic<int>>("made"));
  CHECK(arena.find<int>("made") == nullptr);
}

TEST_CASE("a position is the same number everywhere") {
  const shm_arena arena = shm_arena::create_anonymous(kMiB);
  const shm_arena there = another(arena);
  auto* const p = arena.construct<int>("p", 42);
  const position<int> at = arena.to_position(p);
  CHECK(*there.from_position(at) == 42);
  CHECK(std::atomic<position<int>>::is_always_lock_free);
  CHECK_FALSE(position<int>());
}

TEST_CASE("a polymorphic resource serves std::pmr") {
  const shm_arena arena = shm_arena::create_anonymous(kMiB);
  shm_resource resource(arena);
  std::pmr::vector<std::pmr::string> strings(&resource);
  for (int i = 0; i < 100; i++) strings.emplace_back("a string that is too long to be inside");
  CHECK(ashlar_shm_find(strings.back().data()) == arena.get());
}

TEST_CASE("errors are exceptions") {
  CHECK_THROWS_AS(shm_arena::open("there is none of that name"), std::system_error);
  CHECK_THROWS_AS(shm_arena::create("a/b", kMiB), std::system_error);
  const shm_arena arena = shm_arena::create_anonymous(2 * kMiB);
  Vector<char> bytes(arena.allocator<char>());
  CHECK_THROWS_AS(bytes.resize(100 * kMiB), std::bad_alloc);
  struct Thrower {
    Thrower() { throw 1; }
  };
  CHECK_THROWS_AS(arena.construct<Thrower>("thrower"), int);
  CHECK(arena.find<Thrower>("thrower") == nullptr);
}

TEST_CASE("an object that may move has an address while it is locked") {
  struct Sample {
    std::uint64_t number;
    char text[88];
  };
  static_assert(std::atomic<handle<Sample>>::is_always_lock_free);
  const shm_arena arena = shm_arena::create_anonymous(64 * kMiB);
  const shm_arena there = another(arena);
  std::vector<handle<Sample>> samples;
  for (std::uint64_t i = 0; i < 20'000; i++) {
    samples.push_back(arena.make_movable<Sample>(Sample{i, "sample"}));
  }
  const auto kept = arena.lock(samples[7]);
  for (std::size_t i = 0; i < samples.size(); i++) {
    if (i % 10 != 0 && i != 7) CHECK(arena.free(samples[i]));
  }
  ashlar_moved done{};
  CHECK(ashlar_shm_compact(there, UINT64_MAX, SIZE_MAX, &done) == 0);
  CHECK(done.objects > 1000);
  CHECK(kept->number == 7);
  CHECK(arena.lock(samples[7]).get() == kept.get());
  for (std::size_t i = 0; i < samples.size(); i += 10) {
    auto first = there.lock(samples[i]);
    const auto sample = std::move(first);
    REQUIRE(sample->number == i);
    REQUIRE(std::string((*sample).text) == "sample");
  }
  CHECK(arena.free(samples[0]));
  CHECK_FALSE(there.free(samples[0]));
  CHECK_FALSE(there.lock(samples[0]));
}

TEST_CASE("an object whose constructor throws leaves nothing") {
  struct Thrower {
    explicit Thrower(int value) { throw value; }
  };
  const shm_arena arena = shm_arena::create_anonymous(64 * kMiB);
  CHECK_THROWS_AS(arena.make_movable<Thrower>(1), int);
  ashlar_shm_stats stats;
  ashlar_shm_stat(arena, &stats);
  CHECK(stats.handle_allocated == 0);
}

TEST_SUITE_END();

}  // namespace ashlar::test
