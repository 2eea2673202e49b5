// SPDX-License-Identifier: MIT
// A model of how pages change hands in a shared arena, tried in every order of its steps.
//
// What:    one chunk of two pages, three processes with a lane each. They take and give blocks; up
//          to two of them die, between any two steps, also while they recover another.
// How:     each transition is one atomic step of pages.cpp and recovery.cpp; all reachable states
//          are visited. What is checked in each: nobody is handed a page that is in use. In those
//          where everybody rests and the dead are recovered: nobody holds the chunk, and each page
//          is free or in a block that somebody has, or that one of the dead was being given.
//
// The last three test cases leave out a step and expect the model to notice.
#include <array>
#include <deque>
#include <unordered_set>

#include "shm.h"

namespace ashlar::test {

namespace {

constexpr int kWorkers = 3;
constexpr int kPages = 2;
constexpr int kMostDeaths = 2;
constexpr std::uint8_t kTakes = 2;  // of each process

enum Word : std::uint8_t { none, large, cached };

enum Step : std::uint8_t {
  rest,
  take_hold,
  take_claim,
  take_commit,
  give_name,      // the lane says which block it is about to give
  give_mark,      // large → cached
  give_announce,  // the chunk says that it has such blocks
  give_hold,
  give_done,
  let_go,
  sweep,          // gives one cached block, first half: it is a block no more
  sweep_release,  // second half: its page is free
  recover_rebuild,
  recover_finish,
  recover_done,
};

enum Life : std::uint8_t { alive, dead, recovered };

// Who has a page, as far as programs know.
constexpr std::uint8_t kNobody = 0;     // 1 …: worker + 1
constexpr std::uint8_t kOrphan = 0xfe;  // its owner died
constexpr std::uint8_t kFreed = 0xff;   // somebody is freeing it

struct Worker {
  Step step;
  Step after;         // let_go: where to go on
  std::uint8_t name;  // whose lane it works for, + 1
  std::uint8_t page;
  std::uint8_t at;     // sweep
  std::uint8_t takes;  // left
  Life life;
  std::uint8_t recoverer;  // who recovers it, + 1
};

struct World {
  std::uint8_t holder;
  std::uint8_t has_freed;
  std::array<std::uint8_t, kPages> free;
  std::array<Word, kPages> word;
  std::array<std::uint8_t, kPages> user;
  std::array<std::uint8_t, kWorkers> giving;  // page + 1
  std::array<Worker, kWorkers> worker;
  std::uint8_t deaths;

  friend bool operator==(const World& a, const World& b) {
    return std::memcmp(&a, &b, sizeof a) == 0;
  }
};
static_assert(std::has_unique_object_representations_v<World>);
struct Hash {
  std::size_t operator()(const World& w) const {
    return std::hash<std::string_view>()({reinterpret_cast<const char*>(&w), sizeof w});
  }
};

// What is left out, to see that it matters.
enum class Flaw { none, no_name_before_giving, repair_believes_rows, repair_does_not_sweep };

class Model {
 public:
  explicit Model(Flaw flaw = Flaw::none) : flaw_(flaw) {
    World start{};
    for (auto& page : start.free) page = 1;
    for (Worker& w : start.worker) w.takes = kTakes;
    visit(start);
  }

  // "" or what went wrong.
  std::string run() {
    while (!queue_.empty() && wrong_.empty()) {
      const World world = queue_.front();
      queue_.pop_front();
      bool quiet = true;
      for (int i = 0; i < kWorkers; i++) {
        const Worker& w = world.worker[at(i)];
        if (w.life == alive) {
          advance(world, i);
          quiet &= w.step == rest;
          if (world.deaths < kMostDeaths) die(world, i);
        }
        quiet &= w.life != dead;
      }
      if (quiet) inspect(world);
    }
    return wrong_;
  }
  std::size_t states() const { return seen_.size(); }

 private:
  static std::size_t at(int i) { return static_cast<std::size_t>(i); }

  // Registers that nobody will read are zero, so that worlds that are alike are the same.
  void visit(World world) {
    for (int i = 0; i < kWorkers; i++) {
      Worker& w = world.worker[at(i)];
      if (w.life == alive && w.step != rest) continue;
      w = {.step = rest,
           .after = rest,
           .name = 0,
           .page = 0,
           .at = 0,
           .takes = w.life == alive ? w.takes : std::uint8_t{0},
           .life = w.life,
           .recoverer = w.life == dead ? w.recoverer : std::uint8_t{0}};
    }
    if (seen_.insert(world).second) queue_.push_back(world);
  }

  void die(World world, int i) {
    world.worker[at(i)].life = dead;
    world.deaths++;
    for (auto& user : world.user) {
      if (user == i + 1) user = kOrphan;
    }
    visit(world);
  }

  void inspect(const World& w) {
    int leaked = 0;
    for (std::size_t p = 0; p < kPages; p++) {
      if (w.free[p] != (w.word[p] == none)) wrong_ = "a page is lost, or free and in a block";
      if (w.word[p] == cached && w.has_freed == 0) wrong_ = "a freed block is never given back";
      leaked += w.word[p] == large && (w.user[p] == kNobody || w.user[p] == kFreed);
    }
    if (w.holder != 0) wrong_ = "the chunk is held by nobody who lives";
    if (leaked > w.deaths) wrong_ = "more is lost than one block for each death";
  }

  void advance(const World& before, int i) {
    World w = before;
    Worker& me = w.worker[at(i)];
    const std::size_t page = me.page;
    switch (me.step) {
      case rest: begin(before, i); return;
      case take_hold:
        me.step = w.holder == 0 ? take_claim : rest;
        if (w.holder == 0) w.holder = me.name;
        break;
      case take_claim:
        go(me, let_go, rest);
        for (std::uint8_t p = 0; p < kPages; p++) {
          if (w.free[p] == 0) continue;
          w.free[p] = 0;
          me.page = p;
          me.step = take_commit;
          break;
        }
        break;
      case take_commit:
        if (w.word[page] != none || w.user[page] != kNobody) wrong_ = "a page is handed out twice";
        w.word[page] = large;
        w.user[page] = static_cast<std::uint8_t>(i + 1);
        go(me, let_go, rest);
        break;
      case give_name:
        if (flaw_ != Flaw::no_name_before_giving) w.giving[me.name - 1u] = me.page + 1;
        me.step = give_mark;
        break;
      case give_mark:
        if (w.word[page] != large) wrong_ = "a block is not there when its owner frees it";
        w.word[page] = cached;
        w.user[page] = kNobody;
        me.step = give_announce;
        break;
      case give_announce:
        me.step = w.word[page] == cached ? give_hold : give_done;
        if (w.word[page] == cached) w.has_freed = 1;
        break;
      case give_hold:
        me.step = give_done;
        if (w.holder != 0) break;
        w.holder = me.name;
        go(me, let_go, give_done);
        break;
      case give_done:
        w.giving[me.name - 1u] = 0;
        me.step = me.name == i + 1 ? rest : recover_done;
        break;
      case let_go:
        if (w.has_freed != 0) {
          w.has_freed = 0;
          me.at = 0;
          me.step = sweep;
        } else {
          w.holder = 0;
          me.step = me.after;
        }
        break;
      case sweep:
        while (me.at < kPages && w.word[me.at] != cached) me.at++;
        me.step = me.at == kPages ? let_go : sweep_release;
        if (me.at < kPages) w.word[me.at] = none;
        break;
      case sweep_release:
        w.free[me.at] = 1;
        me.step = sweep;
        break;
      case recover_rebuild:
        me.step = recover_finish;
        if (w.holder != me.name) break;
        for (std::size_t p = 0; p < kPages && flaw_ != Flaw::repair_believes_rows; p++) {
          w.free[p] = w.word[p] == none;
        }
        // Its holder may have cleared the mark and not yet looked.
        if (flaw_ != Flaw::repair_does_not_sweep) w.has_freed = 1;
        go(me, let_go, recover_finish);
        break;
      case recover_finish: {
        const std::uint8_t giving = w.giving[me.name - 1u];
        me.step = giving == 0 ? recover_done : give_announce;
        me.page = giving == 0 ? 0 : giving - 1;
        break;
      }
      case recover_done:
        w.worker[me.name - 1u].life = recovered;
        w.worker[me.name - 1u].step = rest;
        me.name = static_cast<std::uint8_t>(i + 1);
        me.step = rest;
        break;
    }
    visit(w);
  }

  static void go(Worker& me, Step step, Step after) {
    me.step = step;
    me.after = after;
  }

  // All that a worker at rest may do next.
  void begin(const World& before, int i) {
    const auto start = [&](auto&& change) {
      World w = before;
      Worker& me = w.worker[at(i)];
      me = {.step = rest,
            .after = rest,
            .name = static_cast<std::uint8_t>(i + 1),
            .page = 0,
            .at = 0,
            .takes = me.takes,
            .life = alive,
            .recoverer = 0};
      change(w, me);
      visit(w);
    };
    if (before.worker[at(i)].takes != 0) {
      start([](World&, Worker& me) {
        me.takes--;
        me.step = take_hold;
      });
    }
    for (std::uint8_t p = 0; p < kPages; p++) {
      // One's own, or what one of the dead had.
      if (before.user[p] != i + 1 && before.user[p] != kOrphan) continue;
      start([p](World& w, Worker& me) {
        w.user[p] = kFreed;
        me.page = p;
        me.step = give_name;
      });
    }
    for (int j = 0; j < kWorkers; j++) {
      const Worker& other = before.worker[at(j)];
      const int by = other.recoverer - 1;
      const bool abandoned = by < 0 || before.worker[at(by)].life != alive;
      if (other.life != dead || !abandoned) continue;
      start([i, j](World& w, Worker& me) {
        w.worker[at(j)].recoverer = static_cast<std::uint8_t>(i + 1);
        me.name = static_cast<std::uint8_t>(j + 1);
        me.step = recover_rebuild;
      });
    }
  }

  Flaw flaw_;
  std::unordered_set<World, Hash> seen_;
  std::deque<World> queue_;
  std::string wrong_;
};

}  // namespace

TEST_SUITE_BEGIN("model");

TEST_CASE("pages change hands soundly in every order of steps and deaths") {
  Model model;
  CHECK(model.run() == "");
  MESSAGE(model.states() << " states");
  CHECK(model.states() > 10'000);
}

TEST_CASE("the model notices a lane that does not say what it gives") {
  CHECK(Model(Flaw::no_name_before_giving).run() == "a freed block is never given back");
}

TEST_CASE("the model notices a repair that believes the row") {
  CHECK(Model(Flaw::repair_believes_rows).run() == "a page is lost, or free and in a block");
}

TEST_CASE("the model notices a repair that does not look for freed blocks") {
  CHECK(Model(Flaw::repair_does_not_sweep).run() == "a freed block is never given back");
}

TEST_SUITE_END();

}  // namespace ashlar::test
