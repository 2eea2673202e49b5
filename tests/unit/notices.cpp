// SPDX-License-Identifier: MIT
// Who wants to be told of short memory is, whatever the program does meanwhile.
#include "notices.h"

#include <atomic>
#include <cstdlib>

#include "control_group.h"
#include "heap.h"
#include "maintenance.h"
#include "objects.h"
#include "options.h"

namespace ashlar::test {

namespace {

struct Told {
  std::atomic<int> calls[4] = {};  // by event
  std::atomic<std::size_t> excess = 0;
  std::atomic<int> forked = 0;

  static void note(void* context, const ashlar_notice* notice) {
    auto& told = *static_cast<Told*>(context);
    told.excess = notice->excess_bytes;
    // What a program may do here.
    void* const p = allocate(100'000);
    give_slot(allocate(100));
    give_slot(p);
    if (told.forked == 0) {
      const pid_t child = ::fork();
      if (child == 0) ::_exit(3);
      int status = 0;
      ::waitpid(child, &status, 0);
      told.forked = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    }
    told.calls[notice->event]++;
  }
  // Within ten seconds.
  bool gets(ashlar_event event, int count) const {
    for (int i = 0; i < 1000 && calls[event] < count; i++) ::usleep(10'000);
    return calls[event] >= count;
  }
};

}  // namespace

TEST_SUITE_BEGIN("notices");

TEST_CASE("of short memory the program is told while it lasts, and once when it is over") {
  ControlGroup root;
  root.write_v2("100");
  root.write(kGroup + "memory.pressure", "some avg10=0.00 avg60=0.00 total=0\n");
  memory_limit.find(root.path());
  options.purge_ms = 100;
  Told told;
  notices.set(Told::note, &told);
  REQUIRE(maintenance.watch_memory());
  ::usleep(1'500'000);  // our thread finds nothing to do, and sleeps
  CHECK(told.calls[ASHLAR_MEMORY_SHORT] == 0);
  root.write_v2("950000");
  CHECK(told.gets(ASHLAR_MEMORY_SHORT, 3));
  CHECK(told.excess == 50'000);
  CHECK(told.forked == 3);
  CHECK(told.calls[ASHLAR_MEMORY_ENOUGH] == 0);
  root.write_v2("100");
  CHECK(told.gets(ASHLAR_MEMORY_ENOUGH, 1));
  root.write(kGroup + "memory.pressure", "some avg10=50.00 avg60=0.00 total=1\n");
  const int before = told.calls[ASHLAR_MEMORY_SHORT];
  CHECK(told.gets(ASHLAR_MEMORY_SHORT, before + 2));
  CHECK(told.excess == 0);
  CHECK(told.calls[ASHLAR_MEMORY_ENOUGH] == 1);

  notices.set(nullptr, nullptr);
  ::usleep(100'000);  // it may be running
  const int last = told.calls[ASHLAR_MEMORY_SHORT];
  ::usleep(1'200'000);
  CHECK(told.calls[ASHLAR_MEMORY_SHORT] == last);

  root.write(kGroup + "memory.pressure", "some avg10=0.00 avg60=0.00 total=1\n");
  Told later;  // that it is over is nothing to who was not told that it began
  notices.set(Told::note, &later);
  REQUIRE(maintenance.watch_memory());
  ::usleep(1'200'000);
  CHECK(later.calls[ASHLAR_MEMORY_ENOUGH] == 0);
  maintenance.stop_thread();
}

TEST_CASE("where our thread may not run, nobody looks after the memory") {
  CHECK_FALSE(maintenance.watch_memory());  // stopped above
}

TEST_SUITE_END();

}  // namespace ashlar::test
