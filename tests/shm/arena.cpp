// SPDX-License-Identifier: MIT
// The C interface: what each call does, what it refuses, and who may die or leave when.
#include <barrier>
#include <cerrno>
#include <thread>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "../unit/temporary.h"
#include "layout.h"
#include "shm.h"

namespace ashlar::test {

namespace {

// A name in /dev/shm that goes with the test.
class Name {
 public:
  Name() : text_("ashlar-test-" + std::to_string(::getpid())) { ashlar_shm_unlink(text_.c_str()); }
  ~Name() { ashlar_shm_unlink(text_.c_str()); }
  operator const char*() const { return text_.c_str(); }
  std::string path() const { return "/dev/shm/" + text_; }

 private:
  std::string text_;
};

int errno_of(const void* result) {
  CHECK(result == nullptr);
  return result == nullptr ? errno : 0;
}

Shared* another(Shared& arena, unsigned flags = 0) {
  return new Shared(ashlar_shm_open_fd(ashlar_shm_fd(arena), flags));
}

// Waits for a byte that the other side sends when it is ready.
class Gate {
 public:
  Gate() { REQUIRE(::pipe(fds_) == 0); }
  ~Gate() {
    ::close(fds_[0]);
    ::close(fds_[1]);
  }
  void open() { REQUIRE(::write(fds_[1], "", 1) == 1); }
  void wait() {
    char byte;
    REQUIRE(::read(fds_[0], &byte, 1) == 1);
  }
  int writer() const { return fds_[1]; }

 private:
  int fds_[2];
};

}  // namespace

TEST_SUITE_BEGIN("arena");

// --- making and opening -------------------------------------------------------------------------

TEST_CASE("a named arena is made once, opened by name, and gone when unlinked") {
  Name name;
  Shared arena(ashlar_shm_create(name, kMiB, 0));
  CHECK(errno_of(ashlar_shm_create(name, kMiB, 0)) == EEXIST);
  struct stat status;
  REQUIRE(::stat(name.path().c_str(), &status) == 0);
  CHECK((status.st_mode & 0777) == 0600);
  bool listed = false;
  static const char* wanted;
  wanted = name;
  ashlar_shm_list(
      [](const char* found, void* context) {
        if (std::strcmp(found, wanted) == 0) *static_cast<bool*>(context) = true;
        return 0;
      },
      &listed);
  CHECK(listed);
  {
    Shared again(ashlar_shm_open((std::string("/") + static_cast<const char*>(name)).c_str(), 0));
    void* const p = arena.take(100);
    ashlar_shm_free(again, ashlar_shm_pointer(again, ashlar_shm_offset(arena, p)));
    CHECK(arena.blocks() == 0);
  }
  CHECK(ashlar_shm_unlink(name) == 0);
  CHECK(ashlar_shm_unlink(name) == -1);
  CHECK(errno_of(ashlar_shm_open(name, 0)) == ENOENT);
  CHECK(arena.take(100) != nullptr);
}

TEST_CASE("a file keeps its blocks when everybody has left") {
  const TemporaryDirectory directory;
  const std::string path = directory.file("arena");
  ashlar_off at = 0;
  {
    Shared arena(ashlar_shm_create_file(path.c_str(), kMiB, 0));
    CHECK(errno_of(ashlar_shm_create_file(path.c_str(), kMiB, 0)) == EEXIST);
    auto* const text = static_cast<char*>(arena.take(100));
    std::strcpy(text, "still here");
    at = ashlar_shm_offset(arena, text);
    REQUIRE(ashlar_shm_root_set(arena, "text", at) == 0);
  }
  Shared arena(ashlar_shm_open_file(path.c_str(), 0));
  CHECK(ashlar_shm_root_get(arena, "text") == at);
  CHECK(std::string(static_cast<char*>(ashlar_shm_pointer(arena, at))) == "still here");
  CHECK(arena.broken() == "");
}

TEST_CASE("bad arguments are refused") {
  for (const char* name : {"", "/", ".", "..", "a/b", "//a"}) {
    CAPTURE(name);
    CHECK(errno_of(ashlar_shm_create(name, kMiB, 0)) == EINVAL);
    CHECK(errno_of(ashlar_shm_open(name, 0)) == EINVAL);
  }
  CHECK(errno_of(ashlar_shm_create(std::string(300, 'x').c_str(), kMiB, 0)) == ENAMETOOLONG);
  CHECK(errno_of(anonymous(0)) == EINVAL);
  CHECK(errno_of(anonymous(~Bytes{0})) == EINVAL);
  CHECK(errno_of(anonymous(kMiB, 1u << 20)) == EINVAL);
  CHECK(errno_of(anonymous(kMiB, ASHLAR_SHM_READ_ONLY)) == EINVAL);
  CHECK(errno_of(ashlar_shm_open_fd(-1, 0)) == EBADF);
  ashlar_shm_close(nullptr);
  Shared arena(anonymous());
  CHECK(errno_of(ashlar_shm_memalign(arena, 3, 10)) == EINVAL);
  CHECK(errno_of(ashlar_shm_memalign(arena, 4 * kMiB, 10)) == EINVAL);
  CHECK(errno_of(ashlar_shm_malloc(arena, ~Bytes{0})) == ENOMEM);
}

TEST_CASE("what is no arena is not opened") {
  const TemporaryDirectory directory;
  const std::string path = directory.file("no arena");
  const int fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  REQUIRE(fd >= 0);
  CHECK(errno_of(ashlar_shm_open_file(path.c_str(), 0)) == EPROTO);  // empty
  REQUIRE(::ftruncate(fd, kMiB) == 0);
  CHECK(errno_of(ashlar_shm_open_file(path.c_str(), 0)) == EPROTO);  // zeros
  CHECK(errno_of(ashlar_shm_open_file("/dev/null", 0)) == EPROTO);
  CHECK(errno_of(ashlar_shm_open_file(directory.path().c_str(), 0)) != 0);

  Shared arena(anonymous());
  shm::Header header;
  REQUIRE(::pread(ashlar_shm_fd(arena), &header, sizeof header, 0) == sizeof header);
  REQUIRE(::ftruncate(fd, static_cast<off_t>(header.segment_bytes)) == 0);
  const auto with = [&](auto&& change) {
    shm::Header changed = header;
    change(changed);
    changed.checksum = shm::hash_bytes(reinterpret_cast<unsigned char*>(&changed),
                                       offsetof(shm::Header, checksum));
    REQUIRE(::pwrite(fd, &changed, sizeof changed, 0) == sizeof changed);
    return errno_of(ashlar_shm_open_file(path.c_str(), 0));
  };
  CHECK(with([](shm::Header& h) { h.magic++; }) == EPROTO);
  CHECK(with([](shm::Header& h) { h.version++; }) == EPROTO);
  CHECK(with([](shm::Header& h) { h.layout_hash++; }) == EPROTO);
  CHECK(with([](shm::Header& h) { h.max_chunks = 0; }) == EPROTO);
  CHECK(with([](shm::Header& h) { h.max_chunks++; }) == EPROTO);
  CHECK(with([](shm::Header& h) { h.max_chunks = kNone; }) == EPROTO);
  CHECK(with([](shm::Header& h) { h.segment_bytes = 0; }) == EPROTO);
  // Any byte of a header that is wrong is noticed.
  for (Bytes i = 0; i < sizeof header; i++) {
    shm::Header flipped = header;
    reinterpret_cast<unsigned char*>(&flipped)[i] ^= 0x40;
    REQUIRE(::pwrite(fd, &flipped, sizeof flipped, 0) == sizeof flipped);
    REQUIRE(errno_of(ashlar_shm_open_file(path.c_str(), 0)) == EPROTO);
  }
  REQUIRE(::pwrite(fd, &header, sizeof header, 0) == sizeof header);
  { Shared whole(ashlar_shm_open_file(path.c_str(), 0)); }
  REQUIRE(::ftruncate(fd, static_cast<off_t>(header.segment_bytes - 1)) == 0);
  CHECK(errno_of(ashlar_shm_open_file(path.c_str(), 0)) == EPROTO);
  ::close(fd);
}

TEST_CASE("an anonymous arena cannot be cut off") {
  Shared arena(anonymous());
  CHECK(::ftruncate(ashlar_shm_fd(arena), 4096) == -1);
  CHECK(errno == EPERM);
}

// --- blocks -------------------------------------------------------------------------------------

TEST_CASE("blocks have the sizes and alignments that were asked for") {
  Shared arena(anonymous(64 * kMiB));
  for (Bytes alignment = 1; alignment <= 2 * kMiB; alignment *= 2) {
    for (const Bytes bytes : {0, 1, 100, 5000, 40'000}) {
      void* const p = ashlar_shm_memalign(arena, alignment, bytes);
      REQUIRE(p != nullptr);
      CHECK(reinterpret_cast<std::uintptr_t>(p) % std::max<Bytes>(alignment, 16) == 0);
      CHECK(ashlar_shm_usable_size(arena, p) >= bytes);
      std::memset(p, 1, bytes);
      ashlar_shm_free(arena, p);
    }
  }
  CHECK(arena.blocks() == 0);
  CHECK(arena.broken() == "");
}

TEST_CASE("realloc keeps what was there") {
  Shared arena(anonymous(64 * kMiB));
  auto* p = static_cast<unsigned char*>(ashlar_shm_realloc(arena, nullptr, 10));
  Random random(1);
  Bytes bytes = 10;
  std::memset(p, 7, bytes);
  for (int i = 0; i < 300; i++) {
    const Bytes next = random.up_to(4 * kMiB);
    p = static_cast<unsigned char*>(ashlar_shm_realloc(arena, p, next));
    REQUIRE(p != nullptr);
    for (Bytes at = 0; at < std::min(bytes, next); at += 97) REQUIRE(p[at] == 7);
    std::memset(p, 7, next);
    bytes = next;
  }
  // What cannot be had leaves the block as it is; nothing is a small block.
  p = static_cast<unsigned char*>(ashlar_shm_realloc(arena, p, 1000));
  REQUIRE(p != nullptr);
  std::memset(p, 7, 1000);
  CHECK(errno_of(ashlar_shm_realloc(arena, p, 100 * kMiB)) == ENOMEM);
  CHECK(p[999] == 7);
  p = static_cast<unsigned char*>(ashlar_shm_realloc(arena, p, 0));
  REQUIRE(p != nullptr);
  CHECK(arena.blocks() == 1);
  ashlar_shm_free(arena, p);
  CHECK(arena.blocks() == 0);
  CHECK(arena.broken() == "");
}

TEST_CASE("what is no block in use is left alone, and counted") {
  Shared arena(anonymous());
  int local = 0;
  auto* const small = static_cast<std::byte*>(arena.take(100));
  auto* const large = static_cast<std::byte*>(arena.take(100'000));
  auto* const kept = arena.take(100);
  std::uint64_t bad = 0;
  const auto refuses = [&](void* p) {
    errno = 0;
    ashlar_shm_free(arena, p);
    return errno == EINVAL && arena.stats().bad_frees == ++bad;
  };
  CHECK(refuses(&local));
  CHECK(refuses(small + 16));
  CHECK(refuses(small + 1));
  CHECK(refuses(large + 1));
  CHECK(refuses(large + kPageBytes));
  ashlar_shm_free(arena, small);
  CHECK(refuses(small));
  ashlar_shm_free(arena, large);
  CHECK(refuses(large));
  CHECK(ashlar_shm_usable_size(arena, &local) == 0);
  CHECK(errno_of(ashlar_shm_realloc(arena, &local, 10)) == EINVAL);
  // Two that free another's block: the second is refused.
  const ashlar_off at = ashlar_shm_offset(arena, kept);
  for (int i = 0; i < 2; i++) {
    Child([&] {
      std::unique_ptr<Shared> other(another(arena));
      ashlar_shm_free(*other, ashlar_shm_pointer(*other, at));
    }).wait();
  }
  CHECK(arena.stats().bad_frees == bad + 1);
  CHECK(arena.broken() == "");
}

// Slabs whose units are 256 apart share a signpost: see View.
TEST_CASE("where one signpost stands for two cursors, both know what is free") {
  Shared arena(anonymous(64 * kMiB));
  const auto unit_of = [](const void* p) {
    return reinterpret_cast<std::uintptr_t>(p) / kUnitBytes;
  };
  void* const near = arena.take(64);
  void* filler = nullptr;
  do {
    filler = ashlar_shm_memalign(arena, kUnitBytes, kUnitBytes);
    REQUIRE(filler != nullptr);
  } while (unit_of(filler) != unit_of(near) + 256);
  ashlar_shm_free(arena, filler);
  void* const far = arena.take(128);
  REQUIRE(unit_of(far) == unit_of(near) + 256);
  // Their pages' slots are all used and given; then the cursor has them again, but for the first.
  const auto go_round = [&](void* first, Bytes bytes) {
    std::vector<void*> slots{first};
    while (slots.size() < kPageBytes / bytes) slots.push_back(arena.take(bytes));
    for (void* p : slots) ashlar_shm_free(arena, p);
    CHECK(arena.take(bytes) == first);
    return slots;
  };
  const std::vector<void*> near_slots = go_round(near, 64);
  const std::vector<void*> far_slots = go_round(far, 128);
  ashlar_shm_free(arena, near);
  ashlar_shm_free(arena, far);
  CHECK(arena.stats().bad_frees == 0);
  for (void* p : near_slots) ashlar_shm_free(arena, p);
  for (void* p : far_slots) ashlar_shm_free(arena, p);
  CHECK(arena.stats().bad_frees == near_slots.size() + far_slots.size());
  CHECK(arena.stats().small_blocks == 0);
  CHECK(arena.broken() == "");
}

// Of every word of a slab, also the last, which stands for fewer slots.
TEST_CASE("any slot that is given to a full slab is taken again before there is a new slab") {
  for (const Bytes bytes : {16, 64, 896, 1000, 20'000}) {
    Shared arena(anonymous(64 * kMiB));
    std::vector<void*> blocks;
    const auto fill_slab = [&] {  // ... and begin the next one
      const Bytes before = arena.stats().active;
      while (arena.stats().active == before) blocks.push_back(arena.take(bytes));
      return blocks.size();
    };
    const std::size_t first = fill_slab();
    const std::size_t capacity = fill_slab() - first;
    fill_slab();
    const Bytes active = arena.stats().active;
    std::size_t room = capacity - 1;  // in the slab that was begun
    for (std::size_t i = 0; i + 1 < blocks.size(); i += 7, room++) {
      ashlar_shm_free(arena, blocks[i]);
    }
    for (; room > 0; room--) arena.take(bytes);
    CHECK(arena.stats().active == active);
    arena.take(bytes);
    CHECK(arena.stats().active > active);
  }
}

TEST_CASE("a thread that holds few objects goes round in a slab's first page, or sixteen slots") {
  for (const Bytes bytes : {16, 48, 64, 112, 1024, 32'768}) {
    Shared arena(anonymous(64 * kMiB));
    std::set<void*> seen;
    for (int i = 0; i < 1000; i++) {
      void* const p = arena.take(bytes);
      seen.insert(p);
      ashlar_shm_free(arena, p);
    }
    CHECK(seen.size() > 1);
    CHECK(seen.size() <= std::max<std::size_t>(16, kPageBytes / bytes));
    CHECK(reinterpret_cast<std::uintptr_t>(*seen.begin()) % kUnitBytes == 0);
  }
}

TEST_CASE("an arena grows to its maximum, says ENOMEM, and gives empty chunks back") {
  Shared arena(anonymous(20 * kMiB));
  std::unique_ptr<Shared> other(another(arena));
  std::vector<void*> blocks;
  for (void* p; (p = ashlar_shm_malloc(arena, 100'000)) != nullptr;) {
    std::memset(p, 1, 100'000);
    blocks.push_back(p);
  }
  CHECK(errno == ENOMEM);
  CHECK(blocks.size() >= 190);
  CHECK(arena.stats().mapped == 20 * kMiB);
  // The other one, which was there before it grew, frees all.
  for (void* p : blocks) {
    ashlar_shm_free(*other, ashlar_shm_pointer(*other, ashlar_shm_offset(arena, p)));
  }
  CHECK(arena.stats().mapped <= 4 * kMiB);
  struct stat status;
  REQUIRE(::fstat(ashlar_shm_fd(arena), &status) == 0);
  CHECK(status.st_blocks * 512 < 6 * static_cast<off_t>(kMiB));
  CHECK(arena.broken() == "");
}

TEST_CASE("what an arena says that it takes is what its file takes") {
  for (const unsigned flags : {0, static_cast<int>(ASHLAR_SHM_FIXED_SIZE)}) {
    CAPTURE(flags);
    Shared arena(anonymous(64 * kMiB, flags));
    const auto said_less_taken = [&] {
      struct stat file;
      REQUIRE(::fstat(ashlar_shm_fd(arena), &file) == 0);
      const ashlar_shm_stats stats = arena.stats();
      return static_cast<off_t>(stats.mapped + stats.metadata) - file.st_blocks * 512;
    };
    CHECK(said_less_taken() == 0);
    void* const large = arena.take(10 * kMiB);
    CHECK(said_less_taken() == 0);
    std::vector<std::thread> threads;
    std::barrier all_have_lanes(6);
    for (int i = 0; i < 6; i++) {
      threads.emplace_back([&arena, &all_have_lanes, i] {
        ashlar_shm_malloc(arena, 64);
        all_have_lanes.arrive_and_wait();
        if (i % 3 == 0) ashlar_shm_handle_alloc(arena, 100);
      });
    }
    for (std::thread& thread : threads) thread.join();
    CHECK(said_less_taken() == 0);
    ashlar_shm_free(arena, large);
    CHECK(said_less_taken() == 0);
  }
}

TEST_CASE("an arena of fixed size has its memory from the start, and keeps it") {
  Shared arena(anonymous(4 * kMiB, ASHLAR_SHM_FIXED_SIZE));
  const auto blocks_of = [&] {
    struct stat status;
    REQUIRE(::fstat(ashlar_shm_fd(arena), &status) == 0);
    return status.st_blocks;
  };
  const auto before = blocks_of();
  CHECK(before * 512 >= 4 * static_cast<off_t>(kMiB));
  work(arena, 1, {});
  CHECK(blocks_of() == before);
}

TEST_CASE("a file system that is full is ENOMEM, and nothing is lost") {
  if (::geteuid() != 0) return;
  const TemporaryDirectory directory;
  Child child([&] {
    if (::syscall(SYS_unshare, 0x00020000) != 0) ::_exit(77);  // mounts of our own
    const char* const path = directory.path().c_str();
    const auto mounted = [&] {
      return ::syscall(SYS_mount, "none", "/", nullptr, 0x44000ul, nullptr) == 0 &&
             ::syscall(SYS_mount, "none", path, "tmpfs", 0ul, "size=12m") == 0;
    };
    if (!mounted()) ::_exit(77);
    {
      Shared arena(ashlar_shm_create_file(directory.file("arena").c_str(), kGiB, 0));
      std::vector<void*> blocks;
      for (void* p; (p = ashlar_shm_malloc(arena, 10'000)) != nullptr;) {
        std::memset(p, 1, 10'000);
        blocks.push_back(p);
      }
      if (errno != ENOMEM || blocks.size() < 500) ::_exit(1);
      if (ashlar_shm_malloc(arena, 4 * kMiB) != nullptr) ::_exit(2);
      if (arena.broken() != "") ::_exit(3);
      for (void* p : blocks) ashlar_shm_free(arena, p);
      if (ashlar_shm_malloc(arena, 10'000) == nullptr || arena.broken() != "") ::_exit(4);
    }
    ::syscall(SYS_umount2, path, 2);
  });
  const int status = child.wait();
  REQUIRE(WIFEXITED(status));
  if (WEXITSTATUS(status) == 77) {
    MESSAGE("no mounts here");
    return;
  }
  CHECK(WEXITSTATUS(status) == 0);
}

TEST_CASE("an address space that is full is ENOMEM") {
  Child child([] {
    const rlimit limit{512 * kMiB, 512 * kMiB};
    ::setrlimit(RLIMIT_AS, &limit);
    ::_exit(anonymous(kGiB) == nullptr && errno == ENOMEM ? 0 : 1);
  });
  if (!kSanitized) CHECK(child.wait() == 0);
}

// --- names --------------------------------------------------------------------------------------

TEST_CASE("roots are set, found, replaced and listed") {
  Shared arena(anonymous());
  const ashlar_off a = ashlar_shm_offset(arena, arena.take(10));
  const ashlar_off b = ashlar_shm_offset(arena, arena.take(10));
  CHECK(ashlar_shm_root_get(arena, "a") == 0);
  CHECK(ashlar_shm_root_set(arena, "a", a) == 0);
  CHECK(ashlar_shm_root_get(arena, "a") == a);
  CHECK(ashlar_shm_root_replace(arena, "a", b, a) == -1);
  CHECK(errno == EEXIST);
  CHECK(ashlar_shm_root_replace(arena, "a", a, b) == 0);
  CHECK(ashlar_shm_root_get(arena, "a") == b);
  CHECK(ashlar_shm_root_replace(arena, "new", 0, a) == 0);
  int count = 0;
  ashlar_shm_roots(
      arena,
      [](const char*, ashlar_off, void* context) { return ++*static_cast<int*>(context), 0; },
      &count);
  CHECK(count == 2);
  CHECK(ashlar_shm_root_set(arena, "", a) == -1);
  CHECK(errno == EINVAL);
  CHECK(ashlar_shm_root_set(arena, std::string(256, 'k').c_str(), a) == -1);
  CHECK(ashlar_shm_root_set(arena, std::string(255, 'k').c_str(), a) == 0);
  CHECK(ashlar_shm_root_get(arena, nullptr) == 0);
}

TEST_CASE("there is room for 1024 roots, and two processes that enter them meet") {
  Shared arena(anonymous());
  const auto key = [](int i) { return "key " + std::to_string(i); };
  Child other([&] {
    for (int i = 0; i < 1024; i++) ashlar_shm_root_set(arena, key(i).c_str(), 4096);
  });
  for (int i = 1023; i >= 0; i--) REQUIRE(ashlar_shm_root_set(arena, key(i).c_str(), 4096) == 0);
  other.wait();
  for (int i = 0; i < 1024; i++) CHECK(ashlar_shm_root_get(arena, key(i).c_str()) == 4096);
  CHECK(ashlar_shm_root_set(arena, "one more", 1) == -1);
  CHECK(errno == ENOMEM);
  CHECK(arena.blocks() == 1024);
  CHECK(arena.broken() == "");
}

TEST_CASE("malloc_into stores the block's offset") {
  Shared arena(anonymous());
  auto* const slot = static_cast<ashlar_off*>(arena.take(16));
  for (const Bytes bytes : {10, 100'000}) {
    const ashlar_off at = ashlar_shm_malloc_into(arena, bytes, slot);
    CHECK(at != 0);
    CHECK(*slot == at);
    CHECK(ashlar_shm_exchange(arena, slot, 0) == at);
    CHECK(*slot == 0);
    ashlar_shm_free(arena, ashlar_shm_pointer(arena, at));
  }
  ashlar_off outside = 0;
  CHECK(ashlar_shm_malloc_into(arena, 10, &outside) == 0);
  CHECK(errno == EINVAL);
  CHECK(ashlar_shm_exchange(arena, &outside, 1) == 0);
  CHECK(errno == EINVAL);
}

// --- processes and threads ----------------------------------------------------------------------

TEST_CASE("a read-only handle looks and takes nothing") {
  Shared arena(anonymous());
  auto* const p = static_cast<char*>(arena.take(10));
  std::strcpy(p, "seen");
  REQUIRE(ashlar_shm_root_set(arena, "p", ashlar_shm_offset(arena, p)) == 0);
  Shared reader(ashlar_shm_open_fd(ashlar_shm_fd(arena), ASHLAR_SHM_READ_ONLY));
  auto* const seen =
      static_cast<char*>(ashlar_shm_pointer(reader, ashlar_shm_root_get(reader, "p")));
  CHECK(std::string(seen) == "seen");
  CHECK(errno_of(ashlar_shm_malloc(reader, 10)) == EACCES);
  CHECK(errno_of(ashlar_shm_malloc(reader, 100'000)) == EACCES);
  CHECK(ashlar_shm_root_set(reader, "q", 1) == -1);
  CHECK(ashlar_shm_recover(reader) == -1);
  ashlar_shm_free(reader, seen);
  CHECK(errno == EINVAL);
  CHECK(reader.broken() == "");
  CHECK(reader.blocks() == 2);
  CHECK(death_of([&] { *seen = 'x'; }).signal == SIGSEGV);
}

TEST_CASE("blocks outlive their process, and are freed by others") {
  Shared arena(anonymous());
  Child([&] {
    std::unique_ptr<Shared> other(another(arena));
    void* const p = other->take(100);
    std::strcpy(static_cast<char*>(p), "legacy");
    ashlar_shm_root_set(*other, "p", ashlar_shm_offset(*other, p));
    ::raise(SIGKILL);
  }).wait();
  CHECK(ashlar_shm_recover(arena) == 1);
  CHECK(ashlar_shm_recover(arena) == 0);
  void* const p = ashlar_shm_pointer(arena, ashlar_shm_root_get(arena, "p"));
  CHECK(std::string(static_cast<char*>(p)) == "legacy");
  ashlar_shm_free(arena, p);
  CHECK(arena.blocks() == 1);
  CHECK(arena.stats().recoveries == 1);
}

TEST_CASE("scoped blocks go with their process, and with its handle") {
  Shared arena(anonymous());
  void* const mine = arena.take(100);
  for (const bool dies : {true, false}) {
    Child([&] {
      Shared* const other = another(arena, ASHLAR_SHM_SCOPED);
      for (int i = 0; i < 100; i++) other->take(500);
      other->take(100'000);
      std::thread([&] { other->take(50); }).join();
      if (dies) ::raise(SIGKILL);
      delete other;
    }).wait();
    CHECK(ashlar_shm_recover(arena) == dies);
    CHECK(arena.blocks() == 1);
    CHECK(arena.broken() == "");
  }
  CHECK(ashlar_shm_usable_size(arena, mine) >= 100);
}

TEST_CASE("a scoped handle makes no names, but sets those that there are") {
  Shared arena(anonymous());
  REQUIRE(ashlar_shm_root_set(arena, "known", 0) == 0);
  {
    Shared scoped(ashlar_shm_open_fd(ashlar_shm_fd(arena), ASHLAR_SHM_SCOPED));
    errno = 0;
    CHECK(ashlar_shm_root_set(scoped, "new", 1) == -1);
    CHECK(errno == EPERM);
    CHECK(ashlar_shm_root_set(scoped, "known", 1) == 0);
  }
  CHECK(ashlar_shm_root_get(arena, "known") == 1);
  CHECK(ashlar_shm_root_get(arena, "new") == 0);
  CHECK(arena.broken() == "");
}

TEST_CASE("a child of fork goes on with the handle, as a process of its own") {
  Shared arena(anonymous());
  void* const before = arena.take(64);
  Child child([&] {
    void* const p = ashlar_shm_malloc(arena, 64);
    ashlar_shm_free(arena, before);
    ::_exit(p != nullptr && arena.stats().processes == 2 && arena.stats().lanes == 2 ? 0 : 1);
  });
  CHECK(child.wait() == 0);
  CHECK(ashlar_shm_recover(arena) == 1);
  CHECK(arena.blocks() == 1);
  CHECK(arena.broken() == "");
}

TEST_CASE("so does a child of a raw clone, which runs no handlers") {
  Shared arena(anonymous());
  void* const before = arena.take(64);
  const auto child =
      static_cast<pid_t>(::syscall(SYS_clone, SIGCHLD, nullptr, nullptr, nullptr, 0));
  if (child == 0) {
    void* const p = ashlar_shm_malloc(arena, 64);
    ashlar_shm_free(arena, before);
    ::_exit(p != nullptr && p != before && arena.stats().lanes == 2 ? 0 : 1);
  }
  int status = -1;
  REQUIRE(::waitpid(child, &status, 0) == child);
  CHECK(status == 0);
  CHECK(ashlar_shm_recover(arena) == 1);
}

TEST_CASE("a process that closes all its files lives on, and goes on taking memory") {
  Shared arena(anonymous(64 * kMiB));
  Gate ready;
  Child child([&] {
    std::unique_ptr<Shared> own(another(arena));
    own->take(64);
    for (int fd = 3; fd < 100; fd++) {
      if (fd != ready.writer()) ::close(fd);
    }
    // Something of the program's takes the number that was ours.
    const int stranger = ::open("/dev/null", O_RDWR);
    for (int i = 0; i < 1000; i++) {
      if (ashlar_shm_malloc(*own, 10'000) == nullptr) ::_exit(1);
    }
    ready.open();
    static_cast<void>(stranger);
    for (;;) ::pause();
  });
  ready.wait();
  CHECK(ashlar_shm_recover(arena) == 0);  // it lives
  CHECK(arena.stats().processes == 2);
  child.kill();
  CHECK(ashlar_shm_recover(arena) == 1);
  CHECK(arena.broken() == "");
}

TEST_CASE("a process that execs is gone, and its children do not keep it alive") {
  Shared arena(anonymous());
  Gate ready;
  Child child([&] {
    std::unique_ptr<Shared> own(another(arena));
    own->take(64);
    if (::fork() == 0) {
      ::close(1), ::close(2), ::sleep(3);
      ::_exit(0);
    }
    ready.open();
    ::execl("/bin/sleep", "sleep", "3", nullptr);
  });
  ready.wait();
  int recovered = 0;
  for (int i = 0; i < 200 && recovered == 0; i++) {
    ::usleep(5000);
    recovered = ashlar_shm_recover(arena);
  }
  CHECK(recovered == 1);
}

TEST_CASE("a process that is stopped is alive, and in nobody's way") {
  Shared arena(anonymous());
  Gate ready;
  Child child([&] {
    std::unique_ptr<Shared> own(another(arena));
    own->take(64);
    ready.open();
    for (;;) ashlar_shm_free(*own, own->take(40'000));
  });
  ready.wait();
  for (int i = 0; i < 20; i++) {
    ::usleep(2000);
    child.send(SIGSTOP);
    work(arena, static_cast<std::uint64_t>(i), {});
    CHECK(ashlar_shm_recover(arena) == 0);
    child.send(SIGCONT);
  }
}

TEST_CASE("threads that end leave their lanes to others") {
  Shared arena(anonymous());
  for (int round = 0; round < 600; round++) {  // more than there are lanes
    std::thread([&] { REQUIRE(ashlar_shm_malloc(arena, 64) != nullptr); }).join();
  }
  CHECK(arena.stats().lanes <= 1);
  CHECK(arena.blocks() == 600);
  CHECK(arena.broken() == "");
}

TEST_CASE("a process in a PID namespace of its own is told from one that died") {
  if (::geteuid() != 0) return;
  Shared arena(anonymous());
  Gate ready;
  Child child([&] {
    if (::syscall(SYS_unshare, 0x20000000) != 0) {  // PID namespace
      ready.open();
      ::_exit(77);
    }
    Child inner([&] {
      ::prctl(PR_SET_PDEATHSIG, SIGKILL);  // or nobody would end it
      std::unique_ptr<Shared> own(another(arena));
      own->take(64);
      ready.open();
      for (;;) ::pause();
    });
    inner.wait();
  });
  ready.wait();
  CHECK(ashlar_shm_recover(arena) == 0);
}

TEST_CASE("a process holds no more than the quota, and is shown with what it holds") {
  Shared arena(anonymous());
  REQUIRE(ashlar_shm_set_quota(arena, kMiB) == 0);
  Bytes taken = 0;
  while (ashlar_shm_malloc(arena, 50'000) != nullptr) taken += 50'000;
  CHECK(errno == EDQUOT);
  CHECK(taken >= kMiB - 100'000);
  CHECK(taken <= kMiB);
  ashlar_shm_process seen{};
  ashlar_shm_processes(
      arena,
      [](const ashlar_shm_process* process, void* context) {
        *static_cast<ashlar_shm_process*>(context) = *process;
        return 0;
      },
      &seen);
  CHECK(seen.pid == ::getpid());
  CHECK(seen.alive == 1);
  CHECK(seen.lanes == 1);
  CHECK(seen.held >= taken);
  CHECK(seen.held <= kMiB);
  // Another process has a quota of its own.
  CHECK(Child([&] { ::_exit(ashlar_shm_malloc(arena, 50'000) != nullptr ? 0 : 1); }).wait() == 0);
}

TEST_CASE("processes that died and that nobody recovered are in nobody's way") {
  Shared arena(anonymous(64 * kMiB));
  for (int i = 0; i < 600; i++) {  // more than there are places
    Child child([&] { ::_exit(ashlar_shm_malloc(arena, 64) != nullptr ? 0 : 1); });
    REQUIRE(child.wait() == 0);
  }
  CHECK(arena.blocks() == 600);
  CHECK(arena.stats().recoveries >= 600 - 512);
  CHECK(arena.broken() == "");
  CHECK(ashlar_shm_recover(arena) + arena.stats().recoveries >= 600);
}

TEST_CASE("two handles of one process are two processes to the arena") {
  Shared arena(anonymous());
  Shared again(ashlar_shm_open_fd(ashlar_shm_fd(arena), 0));
  void* const p = arena.take(64);
  void* const q = again.take(64);
  CHECK(ashlar_shm_offset(arena, p) != ashlar_shm_offset(again, q));
  ashlar_shm_free(again, ashlar_shm_pointer(again, ashlar_shm_offset(arena, p)));
  ashlar_shm_free(arena, ashlar_shm_pointer(arena, ashlar_shm_offset(again, q)));
  CHECK(arena.blocks() == 0);
}

// --- peers that do harm -------------------------------------------------------------------------

// Whatever is written over our data, calls come back, and blocks lie in the arena.
TEST_CASE("a block may end where one process knows of no chunks yet") {
  Shared arena(anonymous(64 * kMiB));
  std::vector<void*> full;  // of the chunks that there are, but for the last one
  for (int i = 0; i < 3; i++) full.push_back(arena.take(2 * kMiB));
  Shared again(ashlar_shm_open_fd(ashlar_shm_fd(arena), 0));
  ashlar_shm_free(arena, full.back());
  void* const block = arena.take(5 * kMiB);
  ashlar_shm_free(again, ashlar_shm_pointer(again, ashlar_shm_offset(arena, block)));
  CHECK(again.stats().bad_frees == 0);
  CHECK(arena.blocks() == 2);
  CHECK(arena.broken() == "");
}

TEST_CASE("a thread in turns of two handles keeps them apart") {
  Shared one(anonymous());
  Shared other(anonymous());
  void* p[2];
  for (int i = 0; i < 1000; i++) {
    p[0] = one.take(64);
    p[1] = other.take(64);
    if (i % 2 == 0) std::swap(p[0], p[1]);
    ashlar_shm_free(i % 2 == 0 ? other : one, p[0]);
    ashlar_shm_free(i % 2 == 0 ? one : other, p[1]);
  }
  CHECK(one.blocks() + other.blocks() == 0);
  CHECK(one.stats().bad_frees + other.stats().bad_frees == 0);
  p[0] = one.take(64);
  other.take(64);
  ashlar_shm_free(other, p[0]);  // not of this one
  CHECK(other.stats().bad_frees == 1);
  CHECK(one.blocks() == 1);
}

TEST_CASE("a thread goes on with a new handle where others closed the old one") {
  for (int i = 0; i < 20; i++) {
    ashlar_shm* arena = anonymous();
    REQUIRE(arena != nullptr);
    ashlar_shm_free(arena, ashlar_shm_malloc(arena, 64));
    // Often at the same address.
    std::thread([&] {
      ashlar_shm_close(arena);
      arena = anonymous();
    }).join();
    Shared next(arena);
    void* const p = next.take(64);
    CHECK(next.blocks() == 1);
    ashlar_shm_free(next, p);
    CHECK(next.blocks() == 0);
    CHECK(next.broken() == "");
  }
}

TEST_CASE("a peer that scribbles over everything makes nobody crash or hang") {
#ifdef NDEBUG
  for_seeds(200, [](Random& random) {
    Shared arena(anonymous(8 * kMiB));
    const shm::Geometry g(4);
    auto* const bytes = static_cast<std::byte*>(
        ::mmap(nullptr, g.end, PROT_READ | PROT_WRITE, MAP_SHARED, ashlar_shm_fd(arena), 0));
    REQUIRE(bytes != MAP_FAILED);
    struct {
      Bytes begin, length;
    } const ranges[] = {{shm::Geometry::kState, 64},
                        {shm::Geometry::kProcessTable, 1024},
                        {shm::Geometry::kLaneTable, 1024},
                        {shm::Geometry::kRootTable, 8 * shm::kRoots},
                        {shm::Geometry::kLaneCursors, 2048},
                        {shm::Geometry::kChunkWords, 32},
                        {g.table, 1024},
                        {g.summaries, 16},
                        {g.chunk_metadata, 4 * sizeof(shm::SharedChunk)},
                        {g.data, kMiB}};
    const std::uint64_t seed = random.next();
    Child victim([&] {
      ::alarm(10);
      Random own(seed);
      std::vector<void*> blocks;
      for (int i = 0; i < 30'000; i++) {
        if (own.chance(55)) {
          void* const p =
              ashlar_shm_malloc(arena, own.chance(5) ? own.up_to(3 * kMiB) : own.up_to(20'000));
          if (p == nullptr) continue;
          if (ashlar_shm_offset(arena, p) == 0) ::_exit(2);
          blocks.push_back(p);
        } else if (!blocks.empty()) {
          ashlar_shm_free(arena, pick(blocks, own));
        }
        if (own.chance(1)) ashlar_shm_root_set(arena, std::to_string(i % 50).c_str(), own.next());
        if (i % 1000 == 0) {
          char why[100];
          ashlar_shm_check(arena, why, sizeof why);
          ashlar_shm_recover(arena);
          arena.stats();
        }
      }
    });
    int status = 0;
    while (!victim.ended(status)) {
      for (int i = 0; i < 20; i++) {
        const auto& [begin, length] = ranges[random.below(std::size(ranges))];
        const Bytes at = begin + random.below(length);
        bytes[at] = random.chance(30) ? std::byte{0xff} : static_cast<std::byte>(random.next());
      }
      ::usleep(100);
    }
    CAPTURE(status);
    CHECK(WIFEXITED(status));
    CHECK(WEXITSTATUS(status) == 0);
    ::munmap(bytes, g.end);
  });
#endif
}

TEST_SUITE_END();

}  // namespace ashlar::test
