// SPDX-License-Identifier: MIT
//
// Handles to objects that may be moved, the same for pools on the heap (<ashlar/compact.hpp>) and
// for arenas in shared memory (<ashlar/shm.hpp>), which include this.
//
//   handle         8 bytes that stand for an object, wherever it is
//   locked         its address, for as long as it is needed
//   has_handles    what pools and arenas do with them
#ifndef ASHLAR_HANDLE_HPP
#define ASHLAR_HANDLE_HPP

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <new>
#include <system_error>
#include <type_traits>
#include <utility>

namespace ashlar {

// An object that may be moved while nobody has it locked. Trivially copyable, so it may be kept in
// std::atomic, and in such an object. Once the object was freed, it leads nowhere for ever.
template <class T>
struct handle {
  std::uint64_t word = 0;
  explicit operator bool() const noexcept { return word != 0; }
  friend bool operator==(handle, handle) = default;
};

// The C calls of a home of such objects: alloc, free, lock, unlock; most_bytes, most_alignment.
template <class Home>
struct handle_calls;

// The object of a handle, at its address until this ends, which must be in the thread that made it.
// False, and null: the object was freed.
template <class T, class Home>
class locked {
  using calls = handle_calls<Home>;

 public:
  locked(Home* home, handle<T> object)
      : home_(home), object_(object), p_(calls::lock(home, object.word)) {
    if (p_ == nullptr && errno != ESTALE) {
      throw std::system_error(errno, std::generic_category(), "cannot lock an object");
    }
  }
  locked(locked&& other) noexcept
      : home_(other.home_), object_(other.object_), p_(std::exchange(other.p_, nullptr)) {}
  locked& operator=(locked&&) = delete;
  ~locked() {
    if (p_ != nullptr) calls::unlock(home_, object_.word);
  }

  explicit operator bool() const noexcept { return p_ != nullptr; }
  T* get() const noexcept { return static_cast<T*>(p_); }
  T& operator*() const noexcept { return *get(); }
  T* operator->() const noexcept { return get(); }

 private:
  Home* home_;
  handle<T> object_;
  void* p_;
};

// For classes with a get() that returns their Home*.
template <class Class, class Home>
class has_handles {
  using calls = handle_calls<Home>;

 public:
  // Throws std::bad_alloc, and what the constructor throws.
  template <class T, class... Args>
  handle<T> make_movable(Args&&... args) const {
    static_assert(std::is_trivially_copyable_v<T>, "bytes are all that a move copies");
    static_assert(sizeof(T) <= calls::most_bytes && alignof(T) <= calls::most_alignment);
    const handle<T> object{calls::alloc(home(), sizeof(T))};
    if (!object) throw std::bad_alloc();
    try {
      ::new (lock(object).get()) T(std::forward<Args>(args)...);
    } catch (...) {
      free(object);
      throw;
    }
    return object;
  }
  template <class T>
  locked<T, Home> lock(handle<T> object) const {
    return locked<T, Home>(home(), object);
  }
  // Whoever has it locked may go on until he unlocks it. False: it was freed before.
  template <class T>
  bool free(handle<T> object) const noexcept {
    return calls::free(home(), object.word) == 0;
  }

 private:
  Home* home() const noexcept { return static_cast<const Class*>(this)->get(); }
};

}  // namespace ashlar

#endif
