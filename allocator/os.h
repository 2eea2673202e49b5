// SPDX-License-Identifier: MIT
// L0 · os: the only place that asks the kernel for anything, and the only one that knows the
// architecture.
//
// What:    regions of address space, memory in them, memory given back; futexes; a clock.
// How:     a heap's region is a window of addresses that is *not* reserved. Memory appears in
//          it chunk by chunk with MAP_FIXED_NOREPLACE, so VmSize tells the truth, and neither
//          RLIMIT_AS nor strict overcommit ever refuses a reservation. Where a window cannot be
//          had (valgrind, sanitizers), a ladder of PROT_NONE reservations is tried instead.
// Errors:  every call but mmap may fail with EPERM or ENOSYS and nothing breaks; errno is kept.
// Threads: any; async-signal-safe. Raw system calls: wrappers that others interpose are not used.
#pragma once

#include <atomic>
#include <cstdint>
#include <string_view>

#include "units.h"

namespace ashlar::os {

enum class Commit { done, no_memory, taken };

// Whoever brings the memory of a region may say what is done to its pages. Null: nothing is. Each
// function returns 0 when it was done.
struct PageSource {
  void* context = nullptr;
  int (*commit)(void* context, void* address, Bytes length) = nullptr;  // they are zero then
  int (*purge)(void* context, void* address, Bytes length) = nullptr;   // they are zero then
};

// One contiguous range of addresses for one arena.
struct Region {
  enum class Backing : std::uint8_t {
    window,    // addresses only; commit maps
    reserved,  // a PROT_NONE mapping; commit maps over it
    ready,     // private memory that the creator of the arena brings
    sourced    // the same, and the creator's functions provide the pages
  };

  std::byte* base = nullptr;
  Bytes bytes = 0;
  Backing backing = Backing::ready;
  const PageSource* source = nullptr;  // where `sourced`

  // Makes [offset, offset + bytes) readable, writable and zero. Both are multiples of a page.
  // `taken`: a part of the range belongs to somebody else; with `replace` it is ours already.
  [[nodiscard]] Commit commit(Bytes offset, Bytes length, bool replace = false) const;
  // The opposite: the addresses stay the region's, as far as they were. False: the memory stays, as
  // it would leave more mappings than a process may have.
  bool decommit(Bytes offset, Bytes length) const;
  // Gives pages back; they read as zero afterwards. False: they were kept.
  bool purge(void* address, Bytes length) const;
  // Whether memory comes and goes by the system calls of this file.
  bool is_ours() const { return backing == Backing::window || backing == Backing::reserved; }
};

// A chunk-aligned region for a heap, at most `bytes`, less where that much is not to be had.
// Nothing is committed. base is null when there is no address space at all. `attempt` counts up
// from 0; another attempt tries another place.
[[nodiscard]] Region reserve_region(Bytes bytes, unsigned attempt);

// Gives the pages back to the kernel; they read as zero afterwards. False: they were kept.
bool purge(void* address, Bytes length);

// No huge pages here: a small program must not pay 2 MiB for its first object.
void forbid_huge_pages(void* address, Bytes length);
// Huge pages here, wherever whole ones fit, also where the system's setting is `madvise`.
void ask_for_huge_pages(void* address, Bytes length);
// Bytes of [address, address + length) in huge pages. Reads the process's whole /proc/self/smaps.
Bytes huge_page_bytes(const void* address, Bytes length);

// Moves the pages of [from, from + length) to [to, to + length), without copying where the kernel
// can. Both ranges stay mapped.
enum class Move {
  failed,    // the source is as it was; the target may be mapped only in parts: do not use it again
  done,      // the source is new and zero
  exchanged  // as was wanted: the target's pages are the source's now
};
[[nodiscard]] Move move_pages(void* from, void* to, Bytes length, bool exchange);
// Replaces a range by a new one, which merges with its neighbours and is zero. False: it is as it
// was, as the process has as many mappings as it may have.
bool renew_mapping(void* address, Bytes length);

// Bytes of [address, address + length) that are in memory now.
Bytes resident_bytes(const void* address, Bytes length);

// How much of [begin, begin + length) can be read, up to the first page that cannot; 0 where the
// kernel does not let us ask.
Bytes readable_bytes(std::uintptr_t begin, Bytes length);
// Copies readable memory, whatever it is; sanitizers let nobody see what lies between variables.
void copy_unseen(void* to, std::uintptr_t from, Bytes length);
// The first thread's stack ends here, or a little above.
std::uintptr_t end_of_first_stack();

// What an unwinder begins with.
struct Registers {
  std::uint64_t rip, rsp, rbp, rbx, r12, r13, r14, r15;
};
// Those of the function that this becomes a part of; getcontext(3) asks the kernel for a signal
// mask besides.
[[gnu::always_inline]] inline void read_registers(Registers& out) {
  asm volatile(
      "leaq 0(%%rip), %%rax\n\t"
      "movq %%rax, 0(%0)\n\t"
      "movq %%rsp, 8(%0)\n\t"
      "movq %%rbp, 16(%0)\n\t"
      "movq %%rbx, 24(%0)\n\t"
      "movq %%r12, 32(%0)\n\t"
      "movq %%r13, 40(%0)\n\t"
      "movq %%r14, 48(%0)\n\t"
      "movq %%r15, 56(%0)"
      :
      : "r"(&out)
      : "rax", "memory");
}

// A word that reads as 0 in every child that has its own copy of this memory (fork, raw clone),
// and is shared with those that do not (vfork). Null where the kernel cannot do that.
std::atomic<std::uint32_t>* map_fork_marker();

// Sleeps while the word is as expected, and no longer than that.
void futex_wait(std::atomic<std::uint32_t>& word, std::uint32_t expected, std::uint32_t ms = 100);
void futex_wake_one(std::atomic<std::uint32_t>& word);
void pause();

// Makes every running thread of this process execute a full memory barrier, so that others need
// none. False: the kernel cannot (before 4.14, or a filter). The first call costs more.
bool barrier_in_all_threads();

// The calling thread's name, and its number as the kernel counts threads.
void name_thread(const char* name);
std::uint32_t thread_number();
// This process's number.
std::uint32_t process_number();
// How many this thread may run on; 1 where the kernel does not tell.
std::uint32_t processors();
// System call filters (seccomp).
// From the library's constructor: what is filtered from the start is expected to be.
void note_sandbox();
// Whether the program has locked itself in since then. It may not forgive new calls or threads.
bool has_locked_itself_in();

// Opens a file under a number that a program seldom uses; -1: it cannot be. Reads up to `room`
// bytes from its start; 0 when nothing can be read. close(-1) does nothing.
int open_to_read(std::string_view path);
Bytes read_at_start(int file, char* buffer, Bytes room);
void close(int file);

// The same file under another such number, which exec closes; -1: it cannot be.
int duplicate(int file);
// Two numbers whose identities are equal lead to the same file. None: the number leads nowhere.
struct FileIdentity {
  bool exists = false;
  std::uint64_t device = 0, node = 0;
  bool operator==(const FileIdentity&) const = default;
};
FileIdentity identity_of(int file);

std::uint64_t now_ms();  // monotonic, coarse: some ms of grain, some ns of cost
std::uint64_t now_us();  // monotonic, fine: some tens of ns
// Processor time of this thread, by a system call; where that is refused, or may not be forgiven,
// now_us().
std::uint64_t thread_ran_us();
inline std::uint64_t thread_ran_ms() { return thread_ran_us() / 1000; }

}  // namespace ashlar::os
