// SPDX-License-Identifier: MIT
// The limit of the control group, in trees of files as the kernel shows them.
#include "memory_limit.h"

#include <cstring>
#include <filesystem>
#include <fstream>

#include "heap.h"
#include "maintenance.h"
#include "options.h"
#include "temporary.h"

namespace ashlar::test {

namespace {

namespace fs = std::filesystem;

// A directory that stands for the root of all.
class Root {
 public:
  void write(const std::string& name, const std::string& text) {
    fs::create_directories((directory_.path() / name).parent_path());
    std::ofstream(directory_.path() / name) << text;
  }
  MemoryLimit find() const {
    MemoryLimit limit;
    limit.find(directory_.path().native());
    return limit;
  }
  const std::string& path() const { return directory_.path().native(); }

 private:
  TemporaryDirectory directory_;
};

const std::string kGroup = "sys/fs/cgroup/a/b/";
const std::string kV1 = "sys/fs/cgroup/memory/";

void write_v2(Root& root, const std::string& used, const std::string& idle_files = "0") {
  root.write("proc/self/cgroup", "0::/a/b\n");
  root.write(kGroup + "memory.max", "1000000\n");
  root.write(kGroup + "memory.current", used + "\n");
  root.write(kGroup + "memory.stat", "anon 5\ninactive_file " + idle_files + "\nslab 7\n");
}

}  // namespace

TEST_SUITE_BEGIN("memory_limit");

TEST_CASE("where nothing is said, or no limit is set, memory is never short") {
  Root root;
  CHECK(root.find().bytes() == 0);
  CHECK(root.find().shortage() == Shortage::none);
  root.write("proc/self/cgroup", "0::/\n");
  root.write("sys/fs/cgroup/memory.max", "max\n");
  root.write("sys/fs/cgroup/memory.current", "99999999999\n");
  CHECK(root.find().bytes() == 0);
  CHECK(root.find().shortage() == Shortage::none);
  root.write("proc/self/cgroup", "4:memory:/x\n");
  root.write(kV1 + "x/memory.limit_in_bytes", "9223372036854771712\n");
  CHECK(root.find().bytes() == 0);
}

TEST_CASE("memory is tight above nine tenths of the limit") {
  Root root;
  write_v2(root, "900000");
  const MemoryLimit limit = root.find();
  CHECK(limit.bytes() == 1'000'000);
  CHECK(limit.shortage() == Shortage::none);
  write_v2(root, "900001");
  CHECK(limit.shortage() == Shortage::tight);
  write_v2(root, "100");
  CHECK(limit.shortage() == Shortage::none);
}

TEST_CASE("cached files that nobody uses do not count") {
  Root root;
  write_v2(root, "990000", "500000");
  CHECK(root.find().shortage() == Shortage::none);
  write_v2(root, "990000", "50000");
  CHECK(root.find().shortage() == Shortage::tight);
}

TEST_CASE("the limit of a group above holds, too") {
  Root root;
  write_v2(root, "100");
  root.write(kGroup + "memory.max", "max\n");
  root.write("sys/fs/cgroup/a/memory.max", "5000\n");
  root.write("sys/fs/cgroup/a/memory.current", "4900\n");
  CHECK(root.find().bytes() == 5000);
  CHECK(root.find().shortage() == Shortage::tight);
}

TEST_CASE("version 1 has other names, and in a container only the top of the tree") {
  Root root;
  root.write("proc/self/cgroup", "9:cpu:/\n4:memory:/docker/x\n0::/\n");
  root.write(kV1 + "memory.limit_in_bytes", "1000\n");
  root.write(kV1 + "memory.usage_in_bytes", "950\n");
  CHECK(root.find().bytes() == 1000);
  CHECK(root.find().shortage() == Shortage::tight);
}

TEST_CASE("pressure is read from the group, or from the machine") {
  Root root;
  write_v2(root, "100");
  root.write("proc/pressure/memory", "some avg10=9.99 avg60=50.00 total=1\nfull avg10=50.00\n");
  CHECK(root.find().shortage() == Shortage::none);
  root.write("proc/pressure/memory", "some avg10=10.00 avg60=0.00 total=1\nfull avg10=0.00\n");
  CHECK(root.find().shortage() == Shortage::some);
  root.write(kGroup + "memory.pressure", "some avg10=0.00 avg60=0.00 total=0\n");
  CHECK(root.find().shortage() == Shortage::none);
}

TEST_CASE("without a limit, pressure is that of the own group, or of the machine") {
  Root root;
  root.write("proc/self/cgroup", "0::/a/b\n");
  root.write("proc/pressure/memory", "some avg10=12.00 avg60=0.00 total=1\n");
  CHECK(root.find().bytes() == 0);
  CHECK(root.find().shortage() == Shortage::some);
  root.write(kGroup + "memory.max", "max\n");
  root.write(kGroup + "memory.pressure", "some avg10=0.00 avg60=0.00 total=0\n");
  CHECK(root.find().shortage() == Shortage::none);
}

TEST_CASE("nonsense is no limit") {
  Root root;
  write_v2(root, "lots");
  CHECK(root.find().shortage() == Shortage::none);
  for (const char* text : {"", "\n", "-5\n", "none\n", "99999999999999999999999999999\n"}) {
    root.write(kGroup + "memory.max", text);
    CHECK(root.find().bytes() == 0);
  }
  root.write("proc/self/cgroup", "0::" + std::string(3000, 'x') + "\n");
  CHECK(root.find().bytes() == 0);
}

TEST_CASE("near the limit, what is free goes back at once, however long purge_ms is") {
  constexpr Bytes kBytes = 16 * kMiB;
  Root root;
  write_v2(root, "100");
  memory_limit.find(root.path());
  options.purge_ms = 600'000;
  options.background = kBackgroundAlways;
  maintenance.start_thread();
  bool zero = false;
  void* const p = heap.take_large(kBytes, kPageBytes, zero);
  REQUIRE(p != nullptr);
  std::memset(p, 1, kBytes);
  CHECK(heap.give_large(p));
  ::usleep(200'000);
  CHECK(bytes_of(PageCount{arena.buddy().dirty_pages()}) >= kBytes);
  write_v2(root, "999999");
  maintenance.stop_thread();
  maintenance.after_fork_in_child();  // as a process that has no such thread yet
  maintenance.start_thread();
  for (int i = 0; i < 500 && arena.buddy().dirty_pages() != 0; i++) ::usleep(10'000);
  CHECK(arena.buddy().dirty_pages() == 0);
  maintenance.stop_thread();
}

TEST_SUITE_END();

}  // namespace ashlar::test
