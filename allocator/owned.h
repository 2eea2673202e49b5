// SPDX-License-Identifier: MIT
// L0 · owned: a field with one writer at a time that others may read.
//
// Reads and writes are plain machine moves. The owner sees its own writes in order; anybody else
// (a report, a check for double frees) sees some recent value and must treat it as a hint.
#pragma once

#include <atomic>

namespace ashlar {

template <class T>
class Owned {
 public:
  constexpr Owned() = default;
  constexpr Owned(T value) : value_(value) {}
  Owned& operator=(const Owned& other) {
    *this = static_cast<T>(other);
    return *this;
  }
  // relaxed: no order is promised to readers, see above
  operator T() const { return value_.load(std::memory_order_relaxed); }
  // For a reader that goes on to read what was written before.
  void publish(T value) { value_.store(value, std::memory_order_release); }
  T acquire() const { return value_.load(std::memory_order_acquire); }  // pairs with: publish
  T operator=(T value) {
    value_.store(value, std::memory_order_relaxed);
    return value;
  }

 private:
  std::atomic<T> value_{};
};

}  // namespace ashlar
