// SPDX-License-Identifier: MIT
//
// Arenas in shared memory for C++: see <ashlar/shm.h> for what they are and what survives what.
//
//   shm_arena         owns a handle; named objects
//   offset_ptr        a pointer that may lie in an arena: the distance to what it points to
//   position          8 bytes, the same in every process; fits an atomic
//   handle            the same, of an object that may be moved; `locked` gives its address
//   shm_allocator     for containers that live in an arena and take fancy pointers: std::vector,
//                     Boost.Container, boost::unordered_map. libstdc++'s strings, maps and lists
//                     keep plain pointers, and do not compile or do not work
//   shm_resource      std::pmr, for objects of one process
//
// Failures throw std::system_error with the errno of the C call, or std::bad_alloc where there is
// no memory, whatever the reason. Threads, signals and fork: as in <ashlar/shm.h>; an object of a
// class here is one thread's at a time, as usual, but allocators and resources may be used by
// several.
#ifndef ASHLAR_SHM_HPP
#define ASHLAR_SHM_HPP

#include <ashlar/handle.hpp>
#include <ashlar/shm.h>

#include <cerrno>
#include <compare>
#include <cstddef>
#include <iterator>
#include <memory>
#include <memory_resource>
#include <new>
#include <system_error>
#include <type_traits>
#include <utility>

namespace ashlar {

// A pointer to something in the same mapping as itself, or to something of this process while it
// lies on the stack. Its representation depends on where it lies: copy it, do not memcpy it.
template <class T>
class offset_ptr {
  template <class U>
  static constexpr bool converts_from = std::is_convertible_v<U*, T*>;

 public:
  using element_type = T;
  using value_type = std::remove_cv_t<T>;
  using difference_type = std::ptrdiff_t;
  using pointer = offset_ptr;
  using reference = std::add_lvalue_reference_t<T>;
  using iterator_category = std::random_access_iterator_tag;
  template <class U>
  using rebind = offset_ptr<U>;

  offset_ptr() noexcept = default;
  offset_ptr(T* p) noexcept { set(p); }
  offset_ptr(const offset_ptr& other) noexcept { set(other.get()); }
  template <class U>
  requires converts_from<U> offset_ptr(const offset_ptr<U>& other)
  noexcept { set(other.get()); }
  template <class U>
  requires(!converts_from<U> && requires(U * p) {
    static_cast<T*>(p);
  }) explicit offset_ptr(const offset_ptr<U>& other) noexcept {
    set(static_cast<T*>(other.get()));
  }
  offset_ptr& operator=(const offset_ptr& other) noexcept {
    set(other.get());
    return *this;
  }
  offset_ptr& operator=(T* p) noexcept {
    set(p);
    return *this;
  }

  T* get() const noexcept {
    if (distance_ == kNull) return nullptr;
    return reinterpret_cast<T*>(reinterpret_cast<std::uintptr_t>(this) + distance_);
  }
  reference operator*() const noexcept requires(!std::is_void_v<T>) { return *get(); }
  T* operator->() const noexcept { return get(); }
  reference operator[](difference_type i) const noexcept requires(!std::is_void_v<T>) {
    return get()[i];
  }
  explicit operator bool() const noexcept { return distance_ != kNull; }
  template <class U = T>
  requires(!std::is_void_v<U>) static offset_ptr pointer_to(U& object) noexcept {
    return offset_ptr(std::addressof(object));
  }

  offset_ptr& operator+=(difference_type n) noexcept {
    set(get() + n);
    return *this;
  }
  offset_ptr& operator-=(difference_type n) noexcept { return *this += -n; }
  offset_ptr& operator++() noexcept { return *this += 1; }
  offset_ptr& operator--() noexcept { return *this += -1; }
  offset_ptr operator++(int) noexcept {
    const offset_ptr before = *this;
    ++*this;
    return before;
  }
  offset_ptr operator--(int) noexcept {
    const offset_ptr before = *this;
    --*this;
    return before;
  }
  friend offset_ptr operator+(offset_ptr p, difference_type n) noexcept { return p += n; }
  friend offset_ptr operator+(difference_type n, offset_ptr p) noexcept { return p += n; }
  friend offset_ptr operator-(offset_ptr p, difference_type n) noexcept { return p -= n; }
  friend difference_type operator-(const offset_ptr& a, const offset_ptr& b) noexcept {
    return a.get() - b.get();
  }
  friend bool operator==(const offset_ptr& a, const offset_ptr& b) noexcept {
    return a.get() == b.get();
  }
  friend bool operator==(const offset_ptr& a, std::nullptr_t) noexcept { return !a; }
  friend std::strong_ordering operator<=>(const offset_ptr& a, const offset_ptr& b) noexcept {
    return std::compare_three_way()(a.get(), b.get());
  }

 private:
  // A pointer to its own second byte would be null; nothing of ours points there.
  static constexpr std::uintptr_t kNull = 1;

  void set(const volatile void* p) noexcept {
    distance_ = p == nullptr
                    ? kNull
                    : reinterpret_cast<std::uintptr_t>(p) - reinterpret_cast<std::uintptr_t>(this);
  }

  std::uintptr_t distance_ = kNull;
};

// Takes and gives objects in the arena that holds `base`. Lies in the arena with its container.
template <class T>
class shm_allocator {
 public:
  using value_type = T;
  using pointer = offset_ptr<T>;
  using const_pointer = offset_ptr<const T>;
  using void_pointer = offset_ptr<void>;
  using const_void_pointer = offset_ptr<const void>;
  using difference_type = std::ptrdiff_t;
  using size_type = std::size_t;
  template <class U>
  struct rebind {
    using other = shm_allocator<U>;
  };

  shm_allocator(ashlar_shm* arena) noexcept : base_(ashlar_shm_base(arena)) {}
  template <class U>
  shm_allocator(const shm_allocator<U>& other) noexcept : base_(other.base()) {}

  pointer allocate(size_type count) {
    if (count > static_cast<size_type>(-1) / 2 / sizeof(T)) throw std::bad_array_new_length();
    void* const p = ashlar_shm_memalign(arena(), alignof(T), count * sizeof(T));
    if (p == nullptr) throw std::bad_alloc();
    return pointer(static_cast<T*>(p));
  }
  void deallocate(const pointer& p, size_type) noexcept { ashlar_shm_free(arena(), p.get()); }

  // This process's handle, as long as it is open.
  ashlar_shm* arena() const noexcept { return ashlar_shm_find(base_.get()); }
  void* base() const noexcept { return base_.get(); }
  template <class U>
  friend bool operator==(const shm_allocator& a, const shm_allocator<U>& b) noexcept {
    return a.base() == b.base();
  }

 private:
  offset_ptr<void> base_;  // of the segment
};

// An object's position: the same number in every process. Trivially copyable, so it may be stored
// in std::atomic, sent through a pipe, or kept in a file's arena.
template <class T>
struct position {
  ashlar_off offset = 0;
  explicit operator bool() const noexcept { return offset != 0; }
  friend bool operator==(position, position) = default;
};

template <>
struct handle_calls<ashlar_shm> {
  static constexpr std::size_t most_bytes = 32768;
  static constexpr std::size_t most_alignment = 4096;
  static constexpr auto* alloc = ashlar_shm_handle_alloc;
  static constexpr auto* free = ashlar_shm_handle_free;
  static constexpr auto* lock = ashlar_shm_handle_lock;
  static constexpr auto* unlock = ashlar_shm_handle_unlock;
};

// Objects with handles may not hold what means something else elsewhere: no offset_ptr, which is a
// distance from where it lies. Locks end before the arena is closed.
class shm_arena : public has_handles<shm_arena, ashlar_shm> {
 public:
  static shm_arena create(const char* name, std::size_t max_bytes, unsigned flags = 0) {
    return shm_arena(ashlar_shm_create(name, max_bytes, flags), "ashlar_shm_create");
  }
  static shm_arena open(const char* name, unsigned flags = 0) {
    return shm_arena(ashlar_shm_open(name, flags), "ashlar_shm_open");
  }
  static shm_arena open_or_create(const char* name, std::size_t max_bytes, unsigned flags = 0) {
    for (;;) {
      if (ashlar_shm* const arena = ashlar_shm_create(name, max_bytes, flags)) {
        return shm_arena(arena, "");
      }
      if (errno != EEXIST) fail("ashlar_shm_create");
      const unsigned open_flags = flags & ~unsigned{ASHLAR_SHM_FIXED_SIZE};
      if (ashlar_shm* const arena = ashlar_shm_open(name, open_flags)) return shm_arena(arena, "");
      if (errno != ENOENT) fail("ashlar_shm_open");  // unlinked in between: make it anew
    }
  }
  static shm_arena create_anonymous(std::size_t max_bytes, unsigned flags = 0) {
    return shm_arena(ashlar_shm_create_anonymous(max_bytes, flags), "ashlar_shm_create_anonymous");
  }
  static shm_arena open_fd(int fd, unsigned flags = 0) {
    return shm_arena(ashlar_shm_open_fd(fd, flags), "ashlar_shm_open_fd");
  }
  static shm_arena create_file(const char* path, std::size_t max_bytes, unsigned flags = 0) {
    return shm_arena(ashlar_shm_create_file(path, max_bytes, flags), "ashlar_shm_create_file");
  }
  static shm_arena open_file(const char* path, unsigned flags = 0) {
    return shm_arena(ashlar_shm_open_file(path, flags), "ashlar_shm_open_file");
  }

  ashlar_shm* get() const noexcept { return arena_.get(); }
  operator ashlar_shm*() const noexcept { return get(); }

  template <class T>
  shm_allocator<T> allocator() const noexcept {
    return shm_allocator<T>(get());
  }

  template <class T>
  position<T> to_position(const T* p) const noexcept {
    return {ashlar_shm_offset(get(), p)};
  }
  template <class T>
  T* from_position(position<T> p) const noexcept {
    return static_cast<T*>(ashlar_shm_pointer(get(), p.offset));
  }

  // --- named objects: one object a name; the caller knows its type ---------------------------

  // Null: there is none of that name.
  template <class T>
  T* find(const char* name) const {
    return static_cast<T*>(ashlar_shm_pointer(get(), ashlar_shm_root_get(get(), name)));
  }
  // Null: the name is taken. The name appears when the object is complete; of two processes that
  // construct one, one succeeds.
  template <class T, class... Args>
  T* construct(const char* name, Args&&... args) const {
    if (find<T>(name) != nullptr) return nullptr;
    T* const object = make<T>(std::forward<Args>(args)...);
    const ashlar_off at = ashlar_shm_offset(get(), object);
    if (ashlar_shm_root_replace(get(), name, 0, at) == 0) return object;
    const int error = errno;
    unmake(object);
    errno = error;
    if (error != EEXIST) fail("ashlar_shm_root_replace");
    return nullptr;
  }
  template <class T, class... Args>
  T* find_or_construct(const char* name, const Args&... args) const {
    for (;;) {
      if (T* const object = find<T>(name)) return object;
      if (T* const object = construct<T>(name, args...)) return object;
    }
  }
  // False: there is none of that name. Nobody may use the object any more.
  template <class T>
  bool destroy(const char* name) const {
    const ashlar_off at = ashlar_shm_root_get(get(), name);
    if (at == 0 || ashlar_shm_root_replace(get(), name, at, 0) != 0) return false;
    unmake(static_cast<T*>(ashlar_shm_pointer(get(), at)));
    return true;
  }

 private:
  struct Close {
    void operator()(ashlar_shm* arena) const noexcept { ashlar_shm_close(arena); }
  };

  shm_arena(ashlar_shm* arena, const char* call) : arena_(arena) {
    if (arena == nullptr) fail(call);
  }
  [[noreturn]] static void fail(const char* call) {
    throw std::system_error(errno, std::generic_category(), call);
  }
  template <class T, class... Args>
  T* make(Args&&... args) const {
    void* const p = ashlar_shm_memalign(get(), alignof(T), sizeof(T));
    if (p == nullptr) throw std::bad_alloc();
    try {
      return ::new (p) T(std::forward<Args>(args)...);
    } catch (...) {
      ashlar_shm_free(get(), p);
      throw;
    }
  }
  template <class T>
  void unmake(T* object) const {
    object->~T();
    ashlar_shm_free(get(), object);
  }

  std::unique_ptr<ashlar_shm, Close> arena_;
};

// For std::pmr containers of this process whose elements others may look at: what they hold are
// plain pointers, which mean nothing elsewhere.
class shm_resource final : public std::pmr::memory_resource {
 public:
  explicit shm_resource(ashlar_shm* arena) noexcept : arena_(arena) {}

 private:
  void* do_allocate(std::size_t bytes, std::size_t alignment) override {
    void* const p = ashlar_shm_memalign(arena_, alignment, bytes);
    if (p == nullptr) throw std::bad_alloc();
    return p;
  }
  void do_deallocate(void* p, std::size_t, std::size_t) override { ashlar_shm_free(arena_, p); }
  bool do_is_equal(const std::pmr::memory_resource& other) const noexcept override {
    const auto* const same = dynamic_cast<const shm_resource*>(&other);
    return same != nullptr && same->arena_ == arena_;
  }

  ashlar_shm* arena_;
};

}  // namespace ashlar

#endif
