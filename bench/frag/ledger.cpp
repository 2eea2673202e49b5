// SPDX-License-Identifier: MIT
#include "ledger.h"

#include <malloc.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace ashlar::bench::frag {

void die(const char* format, ...) {
  std::va_list arguments;
  va_start(arguments, format);
  std::fputs("ashlar-frag: ", stderr);
  std::vfprintf(stderr, format, arguments);
  std::fputc('\n', stderr);
  va_end(arguments);
  std::_Exit(1);
}

namespace {

std::atomic<std::size_t> table_bytes = 0;

// What an object is filled with: objects that overlap differ, most of the time.
unsigned char pattern_of(Object object) {
  return static_cast<unsigned char>(reinterpret_cast<std::uintptr_t>(object.address) / 16 +
                                    object.size);
}

}  // namespace

void* map_touched(std::size_t bytes) {
  constexpr std::size_t kPage = 4096;
  bytes = (bytes + kPage - 1) / kPage * kPage;
  void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) die("no memory for %zu bytes of tables", bytes);
  madvise(memory, bytes, MADV_NOHUGEPAGE);
  std::memset(memory, 1, bytes);
  table_bytes += bytes;
  return memory;
}

std::size_t bytes_of_tables() { return table_bytes; }

Object Ledger::take(std::size_t size) {
  const Object object{static_cast<unsigned char*>(std::malloc(size)), size};
  if (object.address == nullptr) die("malloc(%zu) failed with %zu bytes live", size, live());
  std::memset(object.address, pattern_of(object), size);
  live_.fetch_add(size, std::memory_order_relaxed);
  moved_.fetch_add(size, std::memory_order_relaxed);
  usable_.fetch_add(malloc_usable_size(object.address), std::memory_order_relaxed);
  return object;
}

void Ledger::give(Object object) {
  const unsigned char pattern = pattern_of(object);
  if (object.address[0] != pattern || object.address[object.size - 1] != pattern) {
    die("an object of %zu bytes at %p was overwritten", object.size,
        static_cast<void*>(object.address));
  }
  live_.fetch_sub(object.size, std::memory_order_relaxed);
  moved_.fetch_add(object.size, std::memory_order_relaxed);
  usable_.fetch_sub(malloc_usable_size(object.address), std::memory_order_relaxed);
  std::free(object.address);
}

Objects::Objects(std::size_t capacity)
    : objects_(static_cast<Object*>(map_touched(capacity * sizeof(Object)))), capacity_(capacity) {}

void Objects::push(Object object) {
  if (size_ == capacity_) die("a table for %zu objects is full", capacity_);
  objects_[size_++] = object;
}

Object Objects::pop() { return objects_[--size_]; }

void Objects::shuffle(Random& random) { std::shuffle(objects_, objects_ + size_, random); }

}  // namespace ashlar::bench::frag
