// SPDX-License-Identifier: MIT
// Boost.Interprocess on our arenas: what its memory algorithms must do, its containers and names in
// the three kinds of managed memory, and processes that die in it.
#include <ashlar/boost_interprocess.hpp>

#include <boost/container/map.hpp>
#include <boost/container/string.hpp>
#include <boost/container/vector.hpp>
#include <boost/interprocess/allocators/allocator.hpp>
#include <boost/interprocess/file_mapping.hpp>
#include <boost/interprocess/indexes/iset_index.hpp>
#include <boost/interprocess/managed_external_buffer.hpp>
#include <boost/interprocess/managed_mapped_file.hpp>
#include <boost/interprocess/managed_shared_memory.hpp>
#include <boost/unordered_map.hpp>

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <thread>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "shm.h"

namespace ashlar::test {

namespace {

namespace bi = boost::interprocess;
namespace bc = boost::container;

using Algorithm = shm_algorithm<>;
using Segment = bi::basic_managed_shared_memory<char, Algorithm, bi::iset_index>;
using FileSegment = bi::basic_managed_mapped_file<char, Algorithm, bi::iset_index>;
using Buffer = bi::basic_managed_external_buffer<char, Algorithm, bi::iset_index>;
using Manager = Segment::segment_manager;
using Chain = Algorithm::multiallocation_chain;
template <class T>
using Alloc = bi::allocator<T, Manager>;
using String = bc::basic_string<char, std::char_traits<char>, Alloc<char>>;

// A name that is this process's, and gone in the end.
class Name {
 public:
  explicit Name(const char* what)
      : text_("ashlar-test-" + std::string(what) + "-" + std::to_string(::getpid())) {
    remove();
  }
  Name(const Name&) = delete;
  ~Name() { remove(); }
  void remove() const { bi::shared_memory_object::remove(text_.c_str()); }
  operator const char*() const { return text_.c_str(); }

 private:
  std::string text_;
};

ashlar_shm* arena_of(const Segment& segment) {
  // The algorithm is the first thing in the segment manager.
  return reinterpret_cast<Algorithm*>(segment.get_segment_manager())->arena();
}

std::string broken(ashlar_shm* arena) {
  char why[200] = "";
  return ashlar_shm_check(arena, why, sizeof why) == 0 ? "" : why;
}

}  // namespace

TEST_SUITE_BEGIN("boost");

TEST_CASE("blocks are taken, resized and given as a memory algorithm must") {
  const Name name("blocks");
  Segment segment(bi::create_only, name, 64 * kMiB);
  Manager& manager = *segment.get_segment_manager();
  CHECK(manager.all_memory_deallocated());
  CHECK(manager.get_size() < 64 * kMiB);
  const Bytes room = manager.get_free_memory();
  CHECK(room >= 56 * kMiB);
  static_assert(Manager::PayloadPerAllocation == 0);

  SUBCASE("one by one") {
    std::vector<std::pair<void*, Bytes>> blocks;
    for (const Bytes bytes : {1u, 16u, 100u, 5000u, 40'000u, 3'000'000u}) {
      void* const p = manager.allocate(bytes);
      CHECK(segment.belongs_to_segment(p));
      CHECK(reinterpret_cast<std::uintptr_t>(p) % Algorithm::Alignment == 0);
      CHECK(manager.size(p) >= bytes);
      fill(p, bytes, bytes);
      blocks.emplace_back(p, bytes);
    }
    CHECK_FALSE(manager.all_memory_deallocated());
    CHECK(manager.get_free_memory() <= room - 3'045'117);
    CHECK(manager.check_sanity());
    for (const auto& [p, bytes] : blocks) {
      CHECK(is_filled(p, bytes, bytes));
      manager.deallocate(p);
    }
    manager.deallocate(nullptr);
    CHECK_THROWS_AS(manager.allocate(64 * kMiB), bi::bad_alloc);
    CHECK(manager.allocate(64 * kMiB, std::nothrow) == nullptr);
  }
  SUBCASE("aligned") {
    for (Bytes alignment = 1; alignment <= 4096; alignment *= 2) {
      void* const p = manager.allocate_aligned(24, alignment);
      CHECK(reinterpret_cast<std::uintptr_t>(p) % alignment == 0);
      manager.deallocate(p);
    }
    // It would not hold where another process has the segment.
    CHECK_THROWS_AS(manager.allocate_aligned(24, 8192), bi::bad_alloc);
  }
  SUBCASE("many at once, all or none") {
    Chain chain;
    manager.allocate_many(100, 1000, chain);
    const Bytes sizes[] = {1, 20, 300};
    manager.allocate_many(sizes, 3, 8, chain);
    CHECK(chain.size() == 1003);
    CHECK_THROWS_AS(manager.allocate_many(kMiB, 1000, chain), bi::bad_alloc);
    const Bytes too_large[] = {1, ~Bytes{0} / 2};
    CHECK_THROWS_AS(manager.allocate_many(too_large, 2, 8, chain), bi::bad_alloc);
    CHECK(chain.size() == 1003);
    std::set<void*> seen;
    for (auto it = chain.begin(); it != chain.end(); ++it) seen.insert(&*it);
    CHECK(seen.size() == 1003);
    manager.deallocate_many(chain);
    CHECK(chain.empty());
  }
  SUBCASE("expanded into the rest of a slot, else anew") {
    Bytes count = 9;
    std::uint64_t* reuse = nullptr;
    std::uint64_t* const p = manager.allocation_command(bi::allocate_new, 9, count, reuse);
    const Bytes fitting = count;
    CHECK(fitting == manager.size(p) / sizeof *p);
    // In place, if the least fits.
    reuse = p;
    count = 100;
    CHECK(manager.allocation_command(bi::expand_fwd | bi::allocate_new, fitting, count, reuse) ==
          p);
    CHECK(reuse == p);
    CHECK(count == fitting);
    // Anew.
    count = 100;
    std::uint64_t* const q =
        manager.allocation_command(bi::expand_fwd | bi::allocate_new, fitting + 1, count, reuse);
    CHECK(q != p);
    CHECK(reuse == nullptr);
    CHECK(count >= 100);
    manager.deallocate(q);
    // Not at all.
    reuse = p;
    count = 100;
    const auto in_place = bi::expand_fwd | bi::nothrow_allocation;
    CHECK(manager.allocation_command(in_place, fitting + 1, count, reuse) == nullptr);
    // Less than preferred, if more cannot be had.
    reuse = nullptr;
    count = 16 * kMiB;
    std::uint64_t* const less = manager.allocation_command(bi::allocate_new, kMiB, count, reuse);
    CHECK(count >= kMiB);
    CHECK(count < 16 * kMiB);
    manager.deallocate(less);
    manager.deallocate(p);
  }
  SUBCASE("shrunk only to what they are") {
    void* p = manager.allocate(1000);
    Bytes count = 10;
    const auto shrink = bi::shrink_in_place | bi::nothrow_allocation;
    CHECK(manager.raw_allocation_command(shrink, 100, count, p) == nullptr);
    const Bytes size = manager.size(p);
    CHECK(manager.raw_allocation_command(shrink, size, count, p) == p);
    CHECK(count == size);
    manager.deallocate(p);
  }
  CHECK(manager.all_memory_deallocated());
  CHECK(manager.get_free_memory() == room);
  CHECK(manager.check_sanity());
}

TEST_CASE("containers and names are found by another mapping") {
  const Name name("containers");
  using Map = bc::map<int, String, std::less<int>, Alloc<std::pair<const int, String>>>;
  using Hash = boost::unordered_map<int, int, boost::hash<int>, std::equal_to<int>,
                                    Alloc<std::pair<const int, int>>>;
  using Vector = bc::vector<String, Alloc<String>>;
  Segment here(bi::create_only, name, 64 * kMiB);
  {
    const Alloc<char> in(here.get_segment_manager());
    Map& map = *here.construct<Map>("map")(std::less<int>(), in);
    Hash& hash = *here.construct<Hash>("hash")(16u, boost::hash<int>(), std::equal_to<int>(), in);
    Vector& vector = *here.construct<Vector>("vector")(in);
    for (int i = 0; i < 2000; i++) {
      const std::string text(static_cast<std::size_t>(i % 70), static_cast<char>('a' + i % 26));
      map.emplace(i, String(text.c_str(), in));
      hash[i] = i * i;
      vector.push_back(String(text.c_str(), in));
    }
    for (int i = 0; i < 2000; i += 2) map.erase(i);
  }
  Segment there(bi::open_only, name);
  REQUIRE(there.get_address() != here.get_address());
  const Map& map = *there.find<Map>("map").first;
  CHECK(map.size() == 1000);
  for (const auto& [i, text] : map) REQUIRE(text.size() == static_cast<std::size_t>(i % 70));
  CHECK(there.find<Hash>("hash").first->at(77) == 77 * 77);
  Vector& vector = *there.find<Vector>("vector").first;
  CHECK(vector.back() == String(39, 'x', Alloc<char>(there.get_segment_manager())));
  vector.resize(500, String(Alloc<char>(there.get_segment_manager())));
  CHECK(here.get_num_named_objects() == 3);
  CHECK(there.check_sanity());
  CHECK(there.destroy<Map>("map"));
  CHECK(there.destroy<Hash>("hash"));
  CHECK(here.destroy<Vector>("vector"));
  CHECK(here.all_memory_deallocated());
}

TEST_CASE("a mapped file keeps its objects") {
  const Name file("file");
  const std::string path = std::string("/dev/shm/") + static_cast<const char*>(file);
  {
    FileSegment segment(bi::create_only, path.c_str(), 16 * kMiB);
    segment.construct<int>("number")(42);
  }
  FileSegment segment(bi::open_only, path.c_str());
  CHECK(*segment.find<int>("number").first == 42);
  CHECK(segment.construct<int>("another")(43) != nullptr);
  CHECK(segment.check_sanity());
}

TEST_CASE("a segment grows while nobody has it mapped, and shrinks when what was added is empty") {
  const Name file("grown");
  const std::string path = std::string("/dev/shm/") + static_cast<const char*>(file);
  const auto file_bytes = [&path] {
    struct stat status {};
    return ::stat(path.c_str(), &status) == 0 ? static_cast<Bytes>(status.st_size) : 0;
  };
  const auto in_first = [&path] {
    FileSegment segment(bi::open_only, path.c_str());
    return segment.get_free_memory();
  };
  FileSegment(bi::create_only, path.c_str(), 16 * kMiB).construct<int>("number")(42);
  const Bytes free = in_first();
  CHECK_FALSE(FileSegment::grow(path.c_str(), kMiB));  // too little for an arena
  REQUIRE(FileSegment::shrink_to_fit(path.c_str()));
  CHECK(file_bytes() == 16 * kMiB);
  REQUIRE(FileSegment::grow(path.c_str(), 32 * kMiB));
  REQUIRE(FileSegment::grow(path.c_str(), 8 * kMiB));
  CHECK(file_bytes() == 56 * kMiB);
  std::vector<FileSegment::handle_t> handles;
  {
    FileSegment segment(bi::open_only, path.c_str());
    CHECK(segment.get_size() == 56 * kMiB);
    CHECK(segment.get_free_memory() >= free + 34 * kMiB);
    CHECK(*segment.find<int>("number").first == 42);
    while (void* const p = segment.allocate(kMiB, std::nothrow)) {
      fill(p, kMiB, handles.size());
      CHECK(segment.get_segment_manager()->size(p) == kMiB);
      handles.push_back(segment.get_handle_from_address(p));
    }
    CHECK(handles.size() >= 40);
    CHECK(segment.check_sanity());
  }
  CHECK(FileSegment::shrink_to_fit(path.c_str()));
  CHECK(file_bytes() == 56 * kMiB);
  {
    FileSegment segment(bi::open_only, path.c_str());
    for (std::size_t i = 0; i < handles.size(); i++) {
      void* const p = segment.get_address_from_handle(handles[i]);
      CHECK(is_filled(p, kMiB, i));
      segment.deallocate(p);
    }
    CHECK(segment.get_free_memory() >= free + 34 * kMiB);
  }
  // Not while somebody may still write to lanes of his in it.
  int done[2];
  REQUIRE(::pipe(done) == 0);
  Child user([&] {
    {
      FileSegment segment(bi::open_only, path.c_str());
      std::vector<void*> blocks;
      while (void* const p = segment.allocate(kMiB, std::nothrow)) blocks.push_back(p);
      for (void* const p : blocks) segment.deallocate(p);
    }
    static_cast<void>(::write(done[1], "", 1));
    for (;;) ::pause();
  });
  char byte;
  REQUIRE(::read(done[0], &byte, 1) == 1);
  CHECK(FileSegment::shrink_to_fit(path.c_str()));
  CHECK(file_bytes() == 56 * kMiB);
  user.kill();
  REQUIRE(FileSegment::shrink_to_fit(path.c_str()));
  CHECK(file_bytes() >= 16 * kMiB);
  CHECK(file_bytes() <= 16 * kMiB + kPageBytes);
  CHECK(in_first() == free);
  FileSegment segment(bi::open_only, path.c_str());
  CHECK(*segment.find<int>("number").first == 42);
  CHECK(segment.check_sanity());
  CHECK(segment.destroy<int>("number"));
  CHECK(segment.all_memory_deallocated());
  // Seven times, and not once more.
  for (int i = 0; i < 7; i++) REQUIRE(FileSegment::grow(path.c_str(), 5 * kMiB));
  CHECK_FALSE(FileSegment::grow(path.c_str(), 5 * kMiB));
}

TEST_CASE("a process is killed in what was added, and one goes on") {
  const Name name("grown");
  Segment(bi::create_only, name, 8 * kMiB);
  REQUIRE(Segment::grow(name, 16 * kMiB));
  Segment segment(bi::open_only, name);
  while (segment.allocate(kMiB, std::nothrow) != nullptr) {
  }
  for (int round = 0; round < 10; round++) {
    Child victim([&] {
      Segment own(bi::open_only, name);
      for (;;) own.deallocate(own.allocate(50'000, std::nothrow));
    });
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
    victim.kill();
    for (int i = 0; i < 100; i++) segment.deallocate(segment.allocate(50'000, std::nothrow));
    REQUIRE(segment.check_sanity());
  }
}

TEST_CASE("a buffer is managed if it is a file's, else it has no memory") {
  const Name name("buffer");
  bi::shared_memory_object object(bi::create_only, name, bi::read_write);
  object.truncate(16 * kMiB);
  const bi::mapped_region region(object, bi::read_write);
  std::memset(region.get_address(), 0xab, region.get_size());  // it need not be zero
  Buffer buffer(bi::create_only, region.get_address(), region.get_size());
  buffer.construct<int>("number")(42);
  const bi::mapped_region again(object, bi::read_write);
  Buffer there(bi::open_only, again.get_address(), again.get_size());
  CHECK(*there.find<int>("number").first == 42);
  CHECK(there.destroy<int>("number"));
  CHECK_THROWS_AS(buffer.grow(kMiB), bi::interprocess_exception);  // too little
  CHECK_THROWS_AS(buffer.zero_free_memory(), bi::interprocess_exception);
  // Made once more in the same place: nothing is left of what was there.
  buffer.construct<int>("left")(1);
  Buffer anew(bi::create_only, region.get_address(), region.get_size());
  CHECK(anew.all_memory_deallocated());
  CHECK(anew.allocate(100) != nullptr);

  const std::unique_ptr<void, void (*)(void*)> own(std::aligned_alloc(16, 16 * kMiB), std::free);
  Buffer none(bi::create_only, own.get(), 16 * kMiB);
  CHECK_THROWS_AS(none.allocate(100), bi::bad_alloc);
  CHECK_FALSE(none.check_sanity());
}

TEST_CASE("segments come and go at one address") {
  const Name name("again");
  std::thread other;
  std::atomic<int> taken = 0;
  // More than there may be handles at a time.
  for (int i = 0; i < 600; i++) {
    name.remove();
    Segment segment(bi::create_only, name, 8 * kMiB);
    REQUIRE(segment.allocate(100) != nullptr);
    // A thread that ends after its segment was unmapped.
    if (i % 100 != 0) continue;
    if (other.joinable()) other.join();
    other = std::thread([&segment, &taken] {
      static_cast<void>(segment.allocate(100));
      ++taken;
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    });
    while (taken != i / 100 + 1) std::this_thread::yield();
  }
  other.join();
}

TEST_CASE("threads find one handle, while others come and go") {
  const Name name("threads");
  const Name passing("passing");
  const Segment made(bi::create_only, name, 16 * kMiB);
  Segment segment(bi::open_only, name);  // at another address, not looked at yet
  std::atomic<bool> stop = false;
  std::atomic<int> failures = 0;
  std::vector<ashlar_shm*> seen(8);
  std::vector<std::thread> threads;
  for (ashlar_shm*& handle : seen) {
    threads.emplace_back([&] {
      handle = arena_of(segment);
      while (!stop) {
        void* const p = segment.allocate(100, std::nothrow);
        if (p == nullptr || arena_of(segment) != handle) ++failures;
        segment.deallocate(p);
      }
    });
  }
  for (int i = 0; i < 50; i++) {
    passing.remove();
    REQUIRE(Segment(bi::create_only, passing, 8 * kMiB).allocate(100) != nullptr);
  }
  stop = true;
  for (std::thread& thread : threads) thread.join();
  CHECK(failures == 0);
  CHECK(std::set<ashlar_shm*>(seen.begin(), seen.end()).size() == 1);
  CHECK(segment.all_memory_deallocated());
}

TEST_CASE("a segment that is too small is refused") {
  const Name name("small");
  CHECK_THROWS_AS(Segment(bi::create_only, name, 65536), bi::interprocess_exception);
  // The least that Boost is told is enough.
  const Bytes least = Manager::get_min_size() + 64;
  Segment segment(bi::create_only, name, least);
  CHECK(segment.allocate(kMiB) != nullptr);
}

TEST_CASE("a child of fork and a process without privileges go on") {
  const Name name("processes");
  Segment segment(bi::create_only, name, 16 * kMiB);
  void* const p = segment.allocate(100);
  Child forked([&] {
    segment.deallocate(p);
    if (segment.allocate(100, std::nothrow) == nullptr) ::_exit(1);
  });
  CHECK(forked.wait() == 0);
  Child unprivileged([&] {
    if (::geteuid() == 0 && ::setuid(65534) != 0) ::_exit(1);
    const Name own("own");
    const Segment made(bi::create_only, own, 16 * kMiB);
    Segment opened(bi::open_only, own);
    if (opened.allocate(100, std::nothrow) == nullptr || !opened.check_sanity()) ::_exit(2);
    // Without a name, the file cannot be had.
    const Segment late(bi::open_only, own);
    own.remove();
    if (late.get_segment_manager()->allocate(100, std::nothrow) != nullptr) ::_exit(3);
  });
  CHECK(unprivileged.wait() == 0);
  CHECK(broken(arena_of(segment)) == "");
}

TEST_CASE("processes are killed in the middle of their work, and one goes on") {
  const Name name("killed");
  Segment segment(bi::create_only, name, 64 * kMiB);
  Random random(7);
  for (int round = 0; round < 50; round++) {
    Child victim([&] {
      Segment own(bi::open_only, name);
      Manager& manager = *own.get_segment_manager();
      std::vector<void*> blocks(64);
      for (Random steps(static_cast<std::uint64_t>(round));;) {
        void*& block = blocks[steps.up_to(63)];
        manager.deallocate(block);
        block = manager.allocate(steps.up_to(20'000), std::nothrow);
      }
    });
    std::vector<std::pair<void*, Bytes>> mine;
    const auto end =
        std::chrono::steady_clock::now() + std::chrono::microseconds(random.between(2000, 10'000));
    while (std::chrono::steady_clock::now() < end) {
      const Bytes bytes = random.between(1, 4000);
      void* const p = segment.allocate(bytes);
      fill(p, bytes, bytes);
      mine.emplace_back(p, bytes);
      if (mine.size() < 100) continue;
      for (const auto& [block, size] : mine) {
        REQUIRE(is_filled(block, size, size));
        segment.deallocate(block);
      }
      mine.clear();
    }
    victim.kill();
    for (const auto& [block, size] : mine) {
      REQUIRE(is_filled(block, size, size));
      segment.deallocate(block);
    }
    REQUIRE(ashlar_shm_recover(arena_of(segment)) >= 0);
    REQUIRE(broken(arena_of(segment)) == "");
  }
  // Of the victims' blocks: those that they held, at most 65 of each.
  ashlar_shm_stats stats;
  REQUIRE(ashlar_shm_stat(arena_of(segment), &stats) == 0);
  CHECK(stats.recoveries > 0);
  CHECK(stats.bad_frees == 0);
  CHECK(stats.small_blocks + stats.large_blocks <= 50 * 65);
}

TEST_SUITE_END();

}  // namespace ashlar::test
