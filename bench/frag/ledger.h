// SPDX-License-Identifier: MIT
// The objects of a workload, and an account of them that costs the allocator nothing.
//
// What:    Ledger takes and gives objects and adds up what they are worth: the bytes asked for, and
//          those that malloc_usable_size says there are. Objects is a table of objects that lies
//          in memory of its own, from mmap, touched at once, and counted apart.
// Packer:  a ledger with one takes its objects there; then nothing is written, and nothing read.
// Rule:    every byte of an object is written, as programs do; the first and the last are looked at
//          again before the object goes, so no allocator gains by giving away what is in use.
// Threads: a Ledger, any; an Objects, one at a time.
#pragma once

#include <atomic>
#include <cstddef>
#include <random>
#include <span>

namespace ashlar::bench::frag {

class Packer;

inline constexpr std::size_t kKiB = 1024;
inline constexpr std::size_t kMiB = 1024 * kKiB;

using Random = std::mt19937_64;  // the standard says which numbers come out of it

// Says why on standard error and ends the process with status 1.
[[noreturn, gnu::format(printf, 1, 2)]] void die(const char* format, ...);

// Whole pages, touched, never huge.
void* map_touched(std::size_t bytes);

struct Object {
  unsigned char* address;
  std::size_t size;
};

class Ledger {
 public:
  // Objects come from malloc, or from a packer.
  explicit Ledger(Packer* packer) : packer_(packer) {}

  Object take(std::size_t size);
  void give(Object object);

  std::size_t live() const { return live_.load(std::memory_order_relaxed); }
  std::size_t usable() const { return usable_.load(std::memory_order_relaxed); }
  std::size_t moved() const { return moved_.load(std::memory_order_relaxed); }
  const Packer* packer() const { return packer_; }

 private:
  std::size_t usable_bytes(Object object) const;

  Packer* const packer_;                 // or null
  std::atomic<std::size_t> live_ = 0;    // any thread
  std::atomic<std::size_t> usable_ = 0;  // any thread
  std::atomic<std::size_t> moved_ = 0;   // any thread; bytes taken and given since the start
};

// Bytes of all tables that there ever were: they stay until the process ends.
std::size_t bytes_of_tables();
// Of all pages that an object in a table lies on, when nobody changes them any more. Ends the
// process when two objects overlap.
std::size_t bytes_of_pages_with_objects();

class Objects {
 public:
  explicit Objects(std::size_t capacity);

  void push(Object object);
  Object pop();
  Object& operator[](std::size_t i) { return all()[i]; }
  std::size_t size() const { return table_->size; }
  bool empty() const { return table_->size == 0; }
  std::span<Object> all() { return {table_->objects, table_->size}; }

  void shuffle(Random& random);

 private:
  friend std::size_t bytes_of_pages_with_objects();
  struct Table {
    Table* next;
    Object* objects;
    std::size_t size;
    std::size_t capacity;
  };
  static Table* tables;  // all of them; main makes them before other threads start

  Table* table_;
};

}  // namespace ashlar::bench::frag
