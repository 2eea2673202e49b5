// SPDX-License-Identifier: MIT
// L6 · dlopen_door: libraries that a program loads while it runs find this malloc, too.
//
// What:    dlopen without RTLD_DEEPBIND. A library loaded with that flag looks for malloc and free
//          in the C library first, and one side would free what the other took. PHP loads its
//          extensions so, and ends in a crash with every other preloaded malloc.
// How:     all the rest is the C library's. It is entered by a jump (hence always optimized), as it
//          knows by its return address whose RUNPATH counts.
// Threads: as the C library's dlopen.
#include <atomic>
#include <dlfcn.h>

#include "door.h"

// Before glibc 2.34 it is in libdl, which only programs have that load libraries.
#pragma weak dlsym

namespace {

using Dlopen = void*(const char*, int);

// The C library's. Whoever finds it null looks for it; all find the same.
constinit std::atomic<Dlopen*> next_dlopen = nullptr;

[[gnu::cold, gnu::noinline]] Dlopen* find_next_slow() {
  if (dlsym == nullptr) return nullptr;
  const auto next = reinterpret_cast<Dlopen*>(dlsym(RTLD_NEXT, "dlopen"));
  next_dlopen.store(next, std::memory_order_relaxed);  // pairs with: dlopen
  return next;
}

}  // namespace

ASHLAR_DOOR void* dlopen(const char* file, int mode) noexcept {
  Dlopen* next = next_dlopen.load(std::memory_order_relaxed);
  if (next == nullptr) next = find_next_slow();
  if (next == nullptr) return nullptr;  // dlerror has what dlsym said
  return next(file, mode & ~RTLD_DEEPBIND);
}
