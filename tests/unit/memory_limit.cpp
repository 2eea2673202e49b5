// SPDX-License-Identifier: MIT
// The limit of the control group, in trees of files as the kernel shows them.
#include "memory_limit.h"

#include <cstring>

#include "control_group.h"
#include "heap.h"
#include "maintenance.h"
#include "options.h"

namespace ashlar::test {

TEST_SUITE_BEGIN("memory_limit");

TEST_CASE("where nothing is said, or no limit is set, memory is never short") {
  ControlGroup root;
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
  ControlGroup root;
  root.write_v2("900000");
  const MemoryLimit limit = root.find();
  CHECK(limit.bytes() == 1'000'000);
  CHECK(limit.shortage() == Shortage::none);
  root.write_v2("900001");
  CHECK(limit.shortage() == Shortage::tight);
  CHECK(limit.excess() == 1);
  root.write_v2("950000", "20000");
  CHECK(limit.excess() == 30'000);
  root.write_v2("100");
  CHECK(limit.shortage() == Shortage::none);
  CHECK(limit.excess() == 0);
}

TEST_CASE("cached files that nobody uses do not count") {
  ControlGroup root;
  root.write_v2("990000", "500000");
  CHECK(root.find().shortage() == Shortage::none);
  root.write_v2("990000", "50000");
  CHECK(root.find().shortage() == Shortage::tight);
}

TEST_CASE("the limit of a group above holds, too") {
  ControlGroup root;
  root.write_v2("100");
  root.write(kGroup + "memory.max", "max\n");
  root.write("sys/fs/cgroup/a/memory.max", "5000\n");
  root.write("sys/fs/cgroup/a/memory.current", "4900\n");
  CHECK(root.find().bytes() == 5000);
  CHECK(root.find().shortage() == Shortage::tight);
}

TEST_CASE("version 1 has other names, and in a container only the top of the tree") {
  ControlGroup root;
  root.write("proc/self/cgroup", "9:cpu:/\n4:memory:/docker/x\n0::/\n");
  root.write(kV1 + "memory.limit_in_bytes", "1000\n");
  root.write(kV1 + "memory.usage_in_bytes", "950\n");
  CHECK(root.find().bytes() == 1000);
  CHECK(root.find().shortage() == Shortage::tight);
}

TEST_CASE("pressure is read from the group, or from the machine") {
  ControlGroup root;
  root.write_v2("100");
  root.write("proc/pressure/memory", "some avg10=9.99 avg60=50.00 total=1\nfull avg10=50.00\n");
  CHECK(root.find().shortage() == Shortage::none);
  root.write("proc/pressure/memory", "some avg10=10.00 avg60=0.00 total=1\nfull avg10=0.00\n");
  CHECK(root.find().shortage() == Shortage::some);
  root.write(kGroup + "memory.pressure", "some avg10=0.00 avg60=0.00 total=0\n");
  CHECK(root.find().shortage() == Shortage::none);
}

TEST_CASE("without a limit, pressure is that of the own group, or of the machine") {
  ControlGroup root;
  root.write("proc/self/cgroup", "0::/a/b\n");
  root.write("proc/pressure/memory", "some avg10=12.00 avg60=0.00 total=1\n");
  CHECK(root.find().bytes() == 0);
  CHECK(root.find().shortage() == Shortage::some);
  root.write(kGroup + "memory.max", "max\n");
  root.write(kGroup + "memory.pressure", "some avg10=0.00 avg60=0.00 total=0\n");
  CHECK(root.find().shortage() == Shortage::none);
}

TEST_CASE("nonsense is no limit") {
  ControlGroup root;
  root.write_v2("lots");
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
  ControlGroup root;
  root.write_v2("100");
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
  root.write_v2("999999");
  maintenance.stop_thread();
  maintenance.after_fork_in_child();  // as a process that has no such thread yet
  maintenance.start_thread();
  for (int i = 0; i < 500 && arena.buddy().dirty_pages() != 0; i++) ::usleep(10'000);
  CHECK(arena.buddy().dirty_pages() == 0);
  maintenance.stop_thread();
}

TEST_SUITE_END();

}  // namespace ashlar::test
