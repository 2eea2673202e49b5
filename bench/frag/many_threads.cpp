// SPDX-License-Identifier: MIT
// The workloads of several threads.
//
// What:    threads and main meet at barriers, and main samples while all of them rest: so every
//          run is sampled at the same moments of its load, on a busy machine too.
// Threads: main makes all tables before any thread starts, and is the only one to sample.
#include <atomic>
#include <barrier>
#include <span>
#include <thread>
#include <vector>

#include "program.h"

namespace ashlar::bench::frag {
namespace {

constexpr int kThreads = 4;
constexpr Uniform kSmall{16, 1 * kKiB};
constexpr std::size_t kSmallMean = 520;

std::size_t small_count(std::size_t bytes) { return bytes / kSmallMean * 11 / 10 + 1000; }

std::vector<Objects> make_tables(int count, std::size_t capacity) {
  std::vector<Objects> tables;
  tables.reserve(count);
  for (int i = 0; i < count; i++) tables.emplace_back(capacity);
  return tables;
}

// Where everybody rests and main samples.
class Rests {
 public:
  explicit Rests(int workers) : everybody_(workers + 1) {}
  void rest() {
    everybody_.arrive_and_wait();
    everybody_.arrive_and_wait();
  }
  void mark(Program& program, const char* name) {  // main, while the others rest()
    everybody_.arrive_and_wait();
    program.mark(name);
    everybody_.arrive_and_wait();
  }
  // The load is over. The workers stay, and sleep in the kernel until the process ends.
  [[noreturn]] void stay() {
    everybody_.arrive_and_drop();
    static const std::atomic<bool> never = false;
    while (true) never.wait(false);
  }
  void await_all() { everybody_.arrive_and_wait(); }  // main, while the others stay()

 private:
  std::barrier<> everybody_;
};

}  // namespace

// Short-lived threads, each of which leaves a twentieth of its objects behind for a while.
void thread_churn(Program& program) {
  constexpr int kGenerations = 48, kRemembered = 8;
  const std::size_t bytes = program.scaled(32 * kMiB);
  std::vector<Objects> work = make_tables(kThreads, small_count(bytes));
  std::vector<Objects> left = make_tables(kThreads * kRemembered, small_count(bytes) / 10);
  program.mark("start");

  for (int generation = 0; generation < kGenerations; generation++) {
    const std::span<Objects> forgotten(&left[generation % kRemembered * kThreads], kThreads);
    for (Objects& objects : forgotten) thin_out(program, objects, 0, program.random);
    Rests rests(kThreads);
    std::vector<std::thread> threads;
    for (int i = 0; i < kThreads; i++) {
      Objects& mine = work[i];
      Objects& survivors = forgotten[i];
      threads.emplace_back([&, seed = program.random()] {
        Random random(seed);
        fill(program.ledger, mine, bytes, kSmall, random);
        rests.rest();
        thin_out(program.ledger, mine, 0.05, random);
        while (!mine.empty()) survivors.push(mine.pop());
      });
    }
    rests.mark(program, "peak");
    for (std::thread& thread : threads) thread.join();
  }
  program.idle();
}

// In each step one thread allocates a batch while another frees the one of four steps ago. A tenth
// of the last four stays.
void remote_free(Program& program) {
  constexpr int kSteps = 64, kWindow = 4;
  const std::size_t bytes = program.scaled(32 * kMiB);
  std::vector<Objects> window = make_tables(kWindow + 1, small_count(bytes));
  const auto batch = [&](int step) -> Objects& { return window[step % (kWindow + 1)]; };
  Rests& rests = *new Rests(2);  // the threads stay longer than this function
  program.mark("start");

  std::thread([&, seed = program.random()] {
    Random random(seed);
    for (int step = 0; step < kSteps; step++) {
      fill(program.ledger, batch(step), bytes, kSmall, random);
      rests.rest();
    }
    rests.stay();
  }).detach();
  std::thread([&, seed = program.random()] {
    Random random(seed);
    for (int step = 0; step < kSteps; step++) {
      if (step >= kWindow) thin_out(program.ledger, batch(step - kWindow), 0, random);
      rests.rest();
    }
    for (int step = kSteps; step < kSteps + kWindow; step++) {
      thin_out(program.ledger, batch(step - kWindow), 0.10, random);
    }
    rests.stay();
  }).detach();
  for (int step = 0; step < kSteps; step++) rests.mark(program, nullptr);
  rests.await_all();
  program.idle();
}

// Small and large objects, all freed by their threads, which then sleep: what comes back unasked?
void idle_threads(Program& program) {
  constexpr int kSteps = 8;
  constexpr LogUniform kLarge{64 * kKiB, 4 * kMiB};
  const std::size_t bytes = program.scaled(128 * kMiB);
  std::vector<Objects> work = make_tables(kThreads, small_count(bytes));
  Rests& rests = *new Rests(kThreads);
  program.mark("start");
  for (Objects& mine : work) {
    std::thread([&, seed = program.random()] {
      Random random(seed);
      for (int step = 0; step < kSteps; step++) {
        fill(program.ledger, mine, bytes / 2 / kSteps, kSmall, random);
        fill(program.ledger, mine, bytes / 2 / kSteps, kLarge, random);
        rests.rest();
      }
      thin_out(program.ledger, mine, 0, random);
      rests.stay();
    }).detach();
  }
  for (int step = 1; step < kSteps; step++) rests.mark(program, nullptr);
  rests.mark(program, "peak");
  rests.await_all();
  program.idle();
}

// What a sleeping thread costs. At the start all of them run and have not called malloc yet.
void parked_threads(Program& program) {
  constexpr int kParked = 64, kRounds = 8;
  const std::size_t bytes = program.scaled(4 * kMiB);
  std::vector<Objects> work = make_tables(kParked, small_count(bytes));
  Rests& rests = *new Rests(kParked);
  for (Objects& mine : work) {
    std::thread([&, seed = program.random()] {
      Random random(seed);
      rests.rest();
      for (int round = 0; round < kRounds; round++) {
        fill(program.ledger, mine, bytes / kRounds, kSmall, random);
        thin_out(program.ledger, mine, 0, random);
      }
      rests.stay();
    }).detach();
  }
  rests.mark(program, "start");
  rests.await_all();
  program.idle();
}

}  // namespace ashlar::bench::frag
