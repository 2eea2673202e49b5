// SPDX-License-Identifier: MIT
// Every form of operator new and delete up to C++20: alignment, the new_handler, bad_alloc and
// null.
#include "expect.h"

#include <malloc.h>
#include <sys/resource.h>

#include <initializer_list>
#include <new>

namespace {

using Align = std::align_val_t;
constexpr Align wide{256};
volatile size_t absurd = PTRDIFF_MAX;  // volatile: the compiler knows what becomes of it

int handler_calls;
int handler_patience;
void* hoard;

void handler_that_gives_up() {
  if (++handler_calls == handler_patience) throw std::bad_alloc();
}

void handler_that_resigns() {
  ++handler_calls;
  std::set_new_handler(nullptr);
}

// Calls `get`; true when it threw std::bad_alloc.
template <class Get>
bool throws_bad_alloc(Get get) {
  try {
    operator delete(get());
  } catch (const std::bad_alloc&) {
    return true;
  }
  return false;
}

void the_operators_are_ours() {
  static const char* const operators[] = {"_Znwm",
                                          "_Znam",
                                          "_ZnwmRKSt9nothrow_t",
                                          "_ZnamRKSt9nothrow_t",
                                          "_ZnwmSt11align_val_t",
                                          "_ZnamSt11align_val_t",
                                          "_ZnwmSt11align_val_tRKSt9nothrow_t",
                                          "_ZnamSt11align_val_tRKSt9nothrow_t",
                                          "_ZdlPv",
                                          "_ZdaPv",
                                          "_ZdlPvm",
                                          "_ZdaPvm",
                                          "_ZdlPvRKSt9nothrow_t",
                                          "_ZdaPvRKSt9nothrow_t",
                                          "_ZdlPvSt11align_val_t",
                                          "_ZdaPvSt11align_val_t",
                                          "_ZdlPvmSt11align_val_t",
                                          "_ZdaPvmSt11align_val_t",
                                          "_ZdlPvSt11align_val_tRKSt9nothrow_t",
                                          "_ZdaPvSt11align_val_tRKSt9nothrow_t"};
  if (!is_preloaded()) return;
  Dl_info home, other;
  dladdr(dlsym(RTLD_DEFAULT, "malloc"), &home);
  for (const char* name : operators) {
    it(name);
    void* found = dlsym(RTLD_DEFAULT, name);
    EXPECT(found && dladdr(found, &other) && other.dli_fbase == home.dli_fbase, ==, 1);
  }
}

void each_form_allocates_and_frees() {
  it("each form of new gives an aligned block of its own, and each form of delete takes it");
  for (size_t size = 0; size < 3 * MIB; size = size * 3 / 2 + 1) {
    void* plain[] = {operator new(size), operator new(size), operator new(size, std::nothrow)};
    void* arrays[] =
        {operator new[](size), operator new[](size), operator new[](size, std::nothrow)};
    void* aligned[] = {operator new(size, wide), operator new(size, wide),
                                                 operator new(size, wide, std::nothrow)};
    void* aligned_arrays[] = {operator new[](size, wide), operator new[](size, wide),
                                                          operator new[](size, wide, std::nothrow)};
    for (auto blocks : {plain, arrays, aligned, aligned_arrays})
      for (int i = 0; i < 3; i++) {
        EXPECT(blocks[i] != nullptr, ==, 1);
        EXPECT(reinterpret_cast<uintptr_t>(blocks[i]) %
                   (blocks == plain || blocks == arrays ? 16 : 256),
               ==, 0);
        EXPECT(malloc_usable_size(blocks[i]), >=, size);
        fill(blocks[i], 0, size, i);
      }
    for (auto blocks : {plain, arrays, aligned, aligned_arrays})
      for (int i = 0; i < 3; i++) EXPECT(kept(blocks[i], size, i), ==, size);
    errno = 77;
    operator delete(plain[0]), operator delete(plain[1], size),
                               operator delete(plain[2], std::nothrow);
    operator delete[](arrays[0]), operator delete[](arrays[1], size),
                                  operator delete[](arrays[2], std::nothrow);
    operator delete(aligned[0], wide), operator delete(aligned[1], size, wide);
    operator delete(aligned[2], wide, std::nothrow);
    operator delete[](aligned_arrays[0], wide), operator delete[](aligned_arrays[1], size, wide);
    operator delete[](aligned_arrays[2], wide, std::nothrow);
    EXPECT(errno, ==, 77);
  }
  it("delete of a null pointer does nothing");
  operator delete(nullptr), operator delete[](nullptr), operator delete(nullptr, 8),
                                                        operator delete(nullptr, wide);
}

void without_a_handler() {
  it("without a new_handler an absurd size throws std::bad_alloc");
  EXPECT(throws_bad_alloc([] { return operator new(absurd); }), ==, 1);
  EXPECT(throws_bad_alloc([] { return operator new[](absurd); }), ==, 1);
  EXPECT(throws_bad_alloc([] { return operator new(absurd, wide); }), ==, 1);
  EXPECT(throws_bad_alloc([] { return operator new[](absurd, wide); }), ==, 1);
  EXPECT(throws_bad_alloc([] { return operator new(SIZE_MAX - absurd + absurd); }), ==, 1);
  it("a nothrow form returns null for an absurd size");
  EXPECT(operator new(absurd, std::nothrow), ==, nullptr);
  EXPECT(operator new[](absurd, std::nothrow), ==, nullptr);
  EXPECT(operator new(absurd, wide, std::nothrow), ==, nullptr);
  EXPECT(operator new[](absurd, wide, std::nothrow), ==, nullptr);
}

void with_a_handler() {
  it("new calls the new_handler again and again until it throws");
  std::set_new_handler(handler_that_gives_up);
  handler_patience = 5;
  void* (*const forms[])() = {
      [] { return operator new(absurd); }, [] { return operator new[](absurd); },
      [] { return operator new(absurd, wide); }, [] { return operator new[](absurd, wide); }};
  for (auto form : forms) {
    handler_calls = 0;
    EXPECT(throws_bad_alloc(form), ==, 1);
    EXPECT(handler_calls, ==, 5);
  }
  it("a nothrow form calls the new_handler and turns its bad_alloc into null");
  void* (*const quiet[])() = {[] { return operator new(absurd, std::nothrow); },
                              [] { return operator new[](absurd, std::nothrow); },
                              [] { return operator new(absurd, wide, std::nothrow); },
                              [] { return operator new[](absurd, wide, std::nothrow); }};
  for (auto form : quiet) {
    handler_calls = 0;
    EXPECT(form(), ==, nullptr);
    EXPECT(handler_calls, ==, 5);
  }
  it("a new_handler that takes itself away ends in bad_alloc");
  for (auto form : forms) {
    std::set_new_handler(handler_that_resigns);
    handler_calls = 0;
    EXPECT(throws_bad_alloc(form), ==, 1);
    EXPECT(handler_calls, ==, 1);
  }
}

// Under a limit on the address space, so that memory really runs out and the handler really helps.
void a_handler_that_frees(void*) {
  it("new succeeds after the new_handler has freed something");
  hoard = operator new(1200 * MIB, std::nothrow);
  EXPECT(hoard != nullptr, ==, 1);
  std::set_new_handler([] {
    ++handler_calls;
    if (!hoard) throw std::bad_alloc();
    operator delete(hoard);
    hoard = nullptr;
  });
  handler_calls = 0;
  EXPECT(throws_bad_alloc([] { return operator new(1200 * MIB); }), ==, 0);
  EXPECT(handler_calls, ==, 1);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc > 1 && !strcmp(argv[1], "limited")) {
    a_handler_that_frees(nullptr);
    return verdict();
  }
  the_operators_are_ours();
  each_form_allocates_and_frees();
  without_a_handler();
  with_a_handler();
  it("new calls the new_handler when memory runs out (2 GiB of address space)");
  pid_t child = fork();
  if (!child) {
    rlimit limit{2048 * MIB, 2048 * MIB};
    setrlimit(RLIMIT_AS, &limit);
    execl("/proc/self/exe", "new_delete", "limited", nullptr);
    _exit(9);
  }
  EXPECT(outcome(child), ==, 0);
  return verdict();
}
