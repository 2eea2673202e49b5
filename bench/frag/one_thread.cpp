// SPDX-License-Identifier: MIT
// The workloads of one thread.
#include <algorithm>
#include <cstdint>

#include "program.h"

namespace ashlar::bench::frag {
namespace {

constexpr LogUniform kLarge{64 * kKiB, 8 * kMiB};
constexpr std::size_t kLargeMean = 1 * kMiB;
constexpr LogNormal kServer{128, 1.3, 16, 64 * kKiB};
constexpr std::size_t kServerMean = 297;

// Room for `bytes` in objects of this mean size, and for the spread of a random sum.
std::size_t count_of(std::size_t bytes, std::size_t mean) { return bytes / mean * 11 / 10 + 1000; }

template <class Sizes>
void keep_some(Program& program, std::size_t bytes, const Sizes& sizes, std::size_t mean,
               double kept) {
  Objects objects(count_of(bytes, mean));
  program.mark("start");
  fill(program, objects, bytes, sizes, program.random);
  program.mark("peak");
  thin_out(program, objects, kept, program.random);
  program.idle();
}

template <class Sizes>
void replace_one(Program& program, Objects& objects, const Sizes& sizes) {
  Object& victim = objects[program.random() % objects.size()];
  program.give(victim);
  victim = program.take(sizes(program.random));
}

// Each object is replaced so many times over, at random; then some stay.
template <class Sizes>
void serve(Program& program, std::size_t bytes, const Sizes& sizes, std::size_t mean,
           std::size_t turnovers, double kept) {
  Objects objects(count_of(bytes, mean));
  program.mark("start");
  fill(program, objects, bytes, sizes, program.random);
  for (std::size_t i = 0; i < turnovers * objects.size(); i++) {
    replace_one(program, objects, sizes);
  }
  program.mark("peak");
  thin_out(program, objects, kept, program.random);
  program.idle();
}

// Robson's sense of "in the way": the object covers an address that is `offset` modulo `step`.
bool covers(Object object, std::size_t offset, std::size_t step) {
  const std::uintptr_t first = reinterpret_cast<std::uintptr_t>(object.address);
  return (offset - first) % step < object.size;
}

}  // namespace

void survivors(Program& program) {
  keep_some(program, program.scaled(1024 * kMiB), Uniform{16, 512}, 264, 0.10);
}

void survivors_95(Program& program) {
  keep_some(program, program.scaled(256 * kMiB), Uniform{48, 256}, 152, 0.05);
}

void large(Program& program) {
  keep_some(program, program.scaled(1024 * kMiB), kLarge, kLargeMean, 0.05);
}

void large_churn(Program& program) {
  serve(program, program.scaled(768 * kMiB), kLarge, kLargeMean, 2, 0.05);
}

void size_shift(Program& program) {
  constexpr std::size_t kSizes[] = {32, 48, 64, 96, 128, 192, 256, 384};
  constexpr double kKept = 0.05;
  const std::size_t bytes = program.scaled(128 * kMiB);
  Objects round(count_of(bytes, kSizes[0]));
  Objects kept(count_of(bytes, kSizes[0]) / 4);
  program.mark("start");
  for (const std::size_t size : kSizes) {
    fill(program, round, bytes, Fixed{size}, program.random);
    program.mark(size == kSizes[7] ? "last_peak" : "peak");
    thin_out(program, round, kKept, program.random);
    while (!round.empty()) kept.push(round.pop());
  }
  program.idle();
}

// Robson 1971. Before each doubling of the size keep just those objects that are in the way of an
// aligned grid of the new size, for whichever of two offsets wastes more; spend the rest anew.
void doubling(Program& program) {
  constexpr std::size_t kLeast = 32, kMost = 64 * kKiB;
  const std::size_t bytes = program.scaled(128 * kMiB);
  Objects objects(count_of(bytes, kLeast));
  program.mark("start");
  fill(program, objects, bytes, Fixed{kLeast}, program.random);
  std::size_t offset = 0;
  for (std::size_t size = 2 * kLeast; size <= kMost; size *= 2) {
    const auto waste = [&](std::size_t at) {
      std::size_t sum = 0;
      for (const Object object : objects.all()) {
        if (covers(object, at, size)) sum += size - object.size;
      }
      return sum;
    };
    if (waste(offset + size / 2) > waste(offset)) offset += size / 2;

    std::size_t left = 0;
    for (const Object object : objects.all()) {
      if (covers(object, offset, size)) {
        objects[left++] = object;
      } else {
        program.give(object);
      }
    }
    while (objects.size() > left) objects.pop();
    while (program.ledger.live() + size <= bytes) objects.push(program.take(size));
    program.mark("peak");
  }
  program.idle();
}

void server(Program& program) {
  serve(program, program.scaled(512 * kMiB), kServer, kServerMean, 4, 0.10);
}

// Three days and three nights. At night, two seconds long, a thousand requests a second go on.
void peak_trough(Program& program) {
  constexpr std::size_t kDays = 3, kPauses = 100, kRequests = 20;
  const std::size_t bytes = program.scaled(512 * kMiB);
  Objects objects(count_of(bytes, kServerMean));
  program.mark("start");
  for (std::size_t day = 0; day < kDays; day++) {
    fill(program, objects, bytes - program.ledger.live(), kServer, program.random);
    program.mark("peak");
    thin_out(program, objects, 0.10, program.random);
    for (std::size_t pause = 0; pause < kPauses; pause++) {
      for (std::size_t i = 0; i < kRequests; i++) replace_one(program, objects, kServer);
      program.pause(0.02);
    }
    program.mark("trough");
  }
  program.idle();
}

// Every object that is not the first of its 2 MiB of addresses goes.
void pinned(Program& program) {
  constexpr std::size_t kWindow = 2 * kMiB;
  const std::size_t bytes = program.scaled(512 * kMiB);
  Objects objects(count_of(bytes, 1152));
  program.mark("start");
  fill(program, objects, bytes, Uniform{256, 2048}, program.random);
  program.mark("peak");
  std::ranges::sort(objects.all(), {}, &Object::address);
  std::uintptr_t window = 0;
  for (const Object object : objects.all()) {
    const std::uintptr_t here = reinterpret_cast<std::uintptr_t>(object.address) / kWindow;
    if (here == window) program.give(object);
    window = here;
  }
  program.idle();
}

}  // namespace ashlar::bench::frag
