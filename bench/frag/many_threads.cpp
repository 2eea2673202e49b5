// SPDX-License-Identifier: MIT
// The workloads of several threads. Main watches; tables are made before any thread starts.
#include <atomic>
#include <thread>
#include <vector>

#include "program.h"

namespace ashlar::bench::frag {
namespace {

constexpr int kThreads = 4;
constexpr Uniform kSmall{16, 1 * kKiB};
constexpr std::size_t kSmallMean = 520;

std::size_t small_count(std::size_t bytes) { return bytes / kSmallMean * 11 / 10 + 1000; }

// Threads that are through with their work and stay: they sleep in the kernel until the end.
[[noreturn]] void stay_for_ever(std::atomic<int>& arrived) {
  arrived++;
  static std::atomic<bool> never = false;
  while (true) never.wait(false);
}

}  // namespace

// Short-lived threads, each of which leaves a twentieth of its objects behind for a while.
void thread_churn(Program& program) {
  constexpr int kGenerations = 48, kRemembered = 8;
  const std::size_t bytes = program.scaled(32 * kMiB);
  std::vector<Objects> work, left;
  for (int i = 0; i < kThreads; i++) work.emplace_back(small_count(bytes));
  for (int i = 0; i < kThreads * kRemembered; i++) left.emplace_back(small_count(bytes) / 10);
  program.mark("start");

  for (int generation = 0; generation < kGenerations; generation++) {
    std::atomic<int> arrived = 0;
    std::vector<std::thread> threads;
    for (int i = 0; i < kThreads; i++) {
      Objects& mine = work[i];
      Objects& survivors = left[generation % kRemembered * kThreads + i];
      while (!survivors.empty()) program.ledger.give(survivors.pop());
      threads.emplace_back([&, seed = program.random()] {
        Random random(seed);
        fill(program.ledger, mine, bytes, kSmall, random);
        thin_out(program.ledger, mine, 0.05, random);
        while (!mine.empty()) survivors.push(mine.pop());
        arrived++;
      });
    }
    program.watch(arrived, kThreads);
    for (std::thread& thread : threads) thread.join();
  }
  program.idle();
}

// One thread only allocates, the other only frees; a window of batches lies between them.
void remote_free(Program& program) {
  constexpr int kBatches = 64, kWindow = 8;
  const std::size_t bytes = program.scaled(32 * kMiB);
  struct Batch {
    Objects objects;
    std::atomic<bool> full = false;
    void await(bool state) { full.wait(!state); }
    void now(bool state) {
      full = state;
      full.notify_one();
    }
  };
  std::vector<Batch*> window;
  for (int i = 0; i < kWindow; i++) window.push_back(new Batch{Objects(small_count(bytes))});
  program.mark("start");

  std::atomic<int> arrived = 0;
  std::thread([&, seed = program.random()] {
    Random random(seed);
    for (int i = 0; i < kBatches; i++) {
      Batch& batch = *window[i % kWindow];
      batch.await(false);
      fill(program.ledger, batch.objects, bytes, kSmall, random);
      batch.now(true);
    }
    stay_for_ever(arrived);
  }).detach();
  std::thread([&, seed = program.random()] {
    Random random(seed);
    for (int i = 0; i < kBatches; i++) {
      Batch& batch = *window[i % kWindow];
      batch.await(true);
      const bool last_lap = i >= kBatches - kWindow;
      thin_out(program.ledger, batch.objects, last_lap ? 0.10 : 0.0, random);
      batch.now(false);
    }
    stay_for_ever(arrived);
  }).detach();
  program.watch(arrived, 2);
  program.idle();
}

// Small and large objects, all freed by their threads, which then sleep: what comes back unasked?
void idle_threads(Program& program) {
  constexpr LogUniform kLarge{64 * kKiB, 4 * kMiB};
  const std::size_t bytes = program.scaled(128 * kMiB);
  std::vector<Objects> work;
  for (int i = 0; i < kThreads; i++) work.emplace_back(small_count(bytes));
  program.mark("start");
  std::atomic<int> filled = 0, arrived = 0;
  std::atomic<bool> go = false;
  for (Objects& mine : work) {
    std::thread([&, seed = program.random()] {
      Random random(seed);
      fill(program.ledger, mine, bytes / 2, kSmall, random);
      fill(program.ledger, mine, bytes / 2, kLarge, random);
      filled++;
      go.wait(false);
      thin_out(program.ledger, mine, 0, random);
      stay_for_ever(arrived);
    }).detach();
  }
  program.watch(filled, kThreads);
  program.mark("peak");
  go = true;
  go.notify_all();
  program.watch(arrived, kThreads);
  program.idle();
}

// What a sleeping thread costs. "start" is when all of them sleep and have not called malloc yet.
void parked_threads(Program& program) {
  constexpr int kParked = 64;
  constexpr std::size_t kRounds = 8;
  const std::size_t bytes = program.scaled(4 * kMiB);
  std::vector<Objects> work;
  for (int i = 0; i < kParked; i++) work.emplace_back(small_count(bytes));
  std::atomic<int> ready = 0, arrived = 0;
  std::atomic<bool> go = false;
  for (Objects& mine : work) {
    std::thread([&, seed = program.random()] {
      Random random(seed);
      ready++;
      go.wait(false);
      for (std::size_t i = 0; i < kRounds; i++) {
        fill(program.ledger, mine, bytes / kRounds, kSmall, random);
        thin_out(program.ledger, mine, 0, random);
      }
      stay_for_ever(arrived);
    }).detach();
  }
  program.watch(ready, kParked);
  program.mark("start");
  go = true;
  go.notify_all();
  program.watch(arrived, kParked);
  program.idle();
}

}  // namespace ashlar::bench::frag
