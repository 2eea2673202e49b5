// SPDX-License-Identifier: MIT
// A heap of one's own (ashlar.h) as a std::pmr::memory_resource:
//
//   ashlar::heap_resource heap;
//   std::pmr::vector<std::pmr::string> words(&heap);
//
// What was allocated from it and not deallocated goes when the resource does; so a container that
// is never destroyed costs nothing, if its elements need no destructors. Thread-safe.
#pragma once

#include <cstddef>
#include <memory_resource>
#include <new>

#include <ashlar/ashlar.h>

namespace ashlar {

class heap_resource : public std::pmr::memory_resource {
 public:
  // Throws std::bad_alloc when there is no memory, or no use for the policy's.
  explicit heap_resource(const ashlar_heap_policy* policy = nullptr)
      : heap_(valid(ashlar_heap_create(policy))) {}
  // In memory that the caller brings; see ashlar_heap_create_in.
  heap_resource(void* memory, std::size_t bytes)
      : heap_(valid(ashlar_heap_create_in(memory, bytes))) {}
  heap_resource(const heap_resource&) = delete;
  heap_resource& operator=(const heap_resource&) = delete;
  ~heap_resource() override { ashlar_heap_destroy(heap_); }

  ashlar_heap* handle() const noexcept { return heap_; }
  ashlar_heap_stats stats() const {
    ashlar_heap_stats result;
    ashlar_heap_get_stats(heap_, &result);
    return result;
  }

 private:
  static ashlar_heap* valid(ashlar_heap* heap) {
    if (heap == nullptr) throw std::bad_alloc();
    return heap;
  }
  void* do_allocate(std::size_t bytes, std::size_t alignment) override {
    void* const p = ashlar_heap_memalign(heap_, alignment, bytes);
    if (p == nullptr) throw std::bad_alloc();
    return p;
  }
  void do_deallocate(void* p, std::size_t, std::size_t) override { ashlar_heap_free(heap_, p); }
  bool do_is_equal(const std::pmr::memory_resource& other) const noexcept override {
    return this == &other;
  }

  ashlar_heap* const heap_;
};

}  // namespace ashlar
