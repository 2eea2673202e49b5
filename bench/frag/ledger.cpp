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
#include <new>

#include "packer.h"

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
  const auto address =
      packer_ != nullptr ? packer_->take(size) : static_cast<unsigned char*>(std::malloc(size));
  const Object object{address, size};
  if (address == nullptr) die("malloc(%zu) failed with %zu bytes live", size, live());
  if (packer_ == nullptr) std::memset(address, pattern_of(object), size);
  live_.fetch_add(size, std::memory_order_relaxed);
  moved_.fetch_add(size, std::memory_order_relaxed);
  usable_.fetch_add(usable_bytes(object), std::memory_order_relaxed);
  return object;
}

void Ledger::give(Object object) {
  live_.fetch_sub(object.size, std::memory_order_relaxed);
  moved_.fetch_add(object.size, std::memory_order_relaxed);
  usable_.fetch_sub(usable_bytes(object), std::memory_order_relaxed);
  if (packer_ != nullptr) return packer_->give(object.address, object.size);
  const unsigned char pattern = pattern_of(object);
  if (object.address[0] != pattern || object.address[object.size - 1] != pattern) {
    die("an object of %zu bytes at %p was overwritten", object.size,
        static_cast<void*>(object.address));
  }
  std::free(object.address);
}

std::size_t Ledger::usable_bytes(Object object) const {
  return packer_ != nullptr ? Packer::usable(object.size) : malloc_usable_size(object.address);
}

Objects::Table* Objects::tables;

Objects::Objects(std::size_t capacity) {
  auto* const memory =
      static_cast<std::byte*>(map_touched(sizeof(Table) + capacity * sizeof(Object)));
  auto* const objects = reinterpret_cast<Object*>(memory + sizeof(Table));
  table_ = new (memory) Table{tables, objects, 0, capacity};
  tables = table_;
}

void Objects::push(Object object) {
  if (size() == table_->capacity) die("a table for %zu objects is full", table_->capacity);
  table_->objects[table_->size++] = object;
}

Object Objects::pop() { return table_->objects[--table_->size]; }

void Objects::shuffle(Random& random) { std::shuffle(all().begin(), all().end(), random); }

std::size_t bytes_of_pages_with_objects() {
  constexpr std::uintptr_t kPage = 4096;
  std::size_t count = 0;
  for (const Objects::Table* t = Objects::tables; t != nullptr; t = t->next) count += t->size;
  const std::span<Object> all(static_cast<Object*>(map_touched((count + 1) * sizeof(Object))),
                              count);
  auto end = all.begin();
  for (const Objects::Table* t = Objects::tables; t != nullptr; t = t->next) {
    end = std::copy_n(t->objects, t->size, end);
  }
  std::ranges::sort(all, {}, &Object::address);
  std::size_t pages = 0;
  std::uintptr_t next_page = 0;  // that was not counted
  std::uintptr_t behind = 0;     // the last object
  for (const Object object : all) {
    const auto begin = reinterpret_cast<std::uintptr_t>(object.address);
    if (begin < behind) die("an object at %p overlaps another", static_cast<void*>(object.address));
    behind = begin + object.size;
    next_page = std::max(next_page, begin / kPage);
    const std::uintptr_t end_page = (behind + kPage - 1) / kPage;
    if (end_page <= next_page) continue;
    pages += end_page - next_page;
    next_page = end_page;
  }
  return pages * kPage;
}

}  // namespace ashlar::bench::frag
