// SPDX-License-Identifier: MIT
// L6 · new_delete: every form of operator new and delete up to C++20.
//
// What:    the throwing forms of one object allocate; all the others forward to them, as the
//          standard says the default ones do. The calls go through the PLT, so that a program
//          that replaces one form sees all of them.
// How:     the C++ runtime is referred to weakly. In a C program none of this is ever called and
//          no C++ library is pulled in; in a C++ program the runtime is there.
#include <cstddef>
#include <cstdlib>
#include <new>

#include "check.h"
#include "thread_cache.h"

#define ASHLAR_OPERATOR [[gnu::visibility("default"), gnu::noinline]]

// What the compiler refers to for the catch clauses below, and how the runtime throws bad_alloc.
__asm__(
    ".weak __gxx_personality_v0\n.weak __cxa_begin_catch\n.weak __cxa_end_catch\n"
    ".weak _Unwind_Resume");
namespace std {
[[gnu::weak]] new_handler get_new_handler() noexcept;
}
extern "C" {
[[gnu::weak]] void throw_bad_alloc_libstdcxx() __asm__("_ZSt17__throw_bad_allocv");
[[gnu::weak]] void throw_bad_alloc_libcxx() __asm__("_ZNSt3__117__throw_bad_allocEv");
}

namespace {

// Memory is out: the handler makes some, throws, or there is none.
[[gnu::cold, gnu::noinline]] void call_new_handler() {
  const std::new_handler handler =
      &std::get_new_handler != nullptr ? std::get_new_handler() : nullptr;
  if (handler != nullptr) return handler();
  if (&throw_bad_alloc_libstdcxx != nullptr) throw_bad_alloc_libstdcxx();
  if (&throw_bad_alloc_libcxx != nullptr) throw_bad_alloc_libcxx();
  ashlar::fatal("operator new: out of memory, and no C++ runtime to throw bad_alloc");
}

[[gnu::noinline]] void* allocate_slow(std::size_t bytes) {
  for (;;) {
    void* const p = std::malloc(bytes);
    if (p != nullptr) return p;
    call_new_handler();
  }
}

void* allocate_or_throw(std::size_t bytes) {
  if (bytes <= ashlar::kMaxSlotBytes) [[likely]] {
    void* const slot = ashlar::take_at_hand(bytes);
    if (slot != nullptr) [[likely]]
      return slot;
  }
  return allocate_slow(bytes);
}

void* allocate_or_throw(std::size_t bytes, std::align_val_t alignment) {
  for (;;) {
    void* p = nullptr;
    auto boundary = static_cast<std::size_t>(alignment);
    if (boundary < sizeof(void*)) boundary = sizeof(void*);
    if (::posix_memalign(&p, boundary, bytes) == 0) [[likely]]
      return p;
    call_new_handler();
  }
}

}  // namespace

// --- new ----------------------------------------------------------------------------------------

ASHLAR_OPERATOR void* operator new(std::size_t bytes) { return allocate_or_throw(bytes); }
ASHLAR_OPERATOR void* operator new(std::size_t bytes, std::align_val_t alignment) {
  return allocate_or_throw(bytes, alignment);
}
ASHLAR_OPERATOR void* operator new[](std::size_t bytes) { return ::operator new(bytes); }
ASHLAR_OPERATOR void* operator new[](std::size_t bytes, std::align_val_t alignment) {
  return ::operator new(bytes, alignment);
}

ASHLAR_OPERATOR void* operator new(std::size_t bytes, const std::nothrow_t&) noexcept {
  try {
    return ::operator new(bytes);
  } catch (...) {
    return nullptr;
  }
}
ASHLAR_OPERATOR void* operator new(std::size_t bytes, std::align_val_t alignment,
                                   const std::nothrow_t&) noexcept {
  try {
    return ::operator new(bytes, alignment);
  } catch (...) {
    return nullptr;
  }
}
ASHLAR_OPERATOR void* operator new[](std::size_t bytes, const std::nothrow_t&) noexcept {
  try {
    return ::operator new[](bytes);
  } catch (...) {
    return nullptr;
  }
}
ASHLAR_OPERATOR void* operator new[](std::size_t bytes, std::align_val_t alignment,
                                     const std::nothrow_t&) noexcept {
  try {
    return ::operator new[](bytes, alignment);
  } catch (...) {
    return nullptr;
  }
}

// --- delete -------------------------------------------------------------------------------------

ASHLAR_OPERATOR void operator delete(void* p) noexcept { ashlar::give_slot(p); }
ASHLAR_OPERATOR void operator delete[](void* p) noexcept { ::operator delete(p); }
ASHLAR_OPERATOR void operator delete(void* p, std::size_t) noexcept { ::operator delete(p); }
ASHLAR_OPERATOR void operator delete[](void* p, std::size_t) noexcept { ::operator delete[](p); }
ASHLAR_OPERATOR void operator delete(void* p, const std::nothrow_t&) noexcept {
  ::operator delete(p);
}
ASHLAR_OPERATOR void operator delete[](void* p, const std::nothrow_t&) noexcept {
  ::operator delete[](p);
}

ASHLAR_OPERATOR void operator delete(void* p, std::align_val_t) noexcept { ashlar::give_slot(p); }
ASHLAR_OPERATOR void operator delete[](void* p, std::align_val_t alignment) noexcept {
  ::operator delete(p, alignment);
}
ASHLAR_OPERATOR void operator delete(void* p, std::size_t, std::align_val_t alignment) noexcept {
  ::operator delete(p, alignment);
}
ASHLAR_OPERATOR void operator delete[](void* p, std::size_t, std::align_val_t alignment) noexcept {
  ::operator delete[](p, alignment);
}
ASHLAR_OPERATOR void operator delete(void* p, std::align_val_t alignment,
                                     const std::nothrow_t&) noexcept {
  ::operator delete(p, alignment);
}
ASHLAR_OPERATOR void operator delete[](void* p, std::align_val_t alignment,
                                       const std::nothrow_t&) noexcept {
  ::operator delete[](p, alignment);
}
