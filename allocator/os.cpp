// SPDX-License-Identifier: MIT
#include "os.h"

#include <bit>
#include <cerrno>
#include <cstring>
#include <ctime>
#include <fcntl.h>
#include <linux/futex.h>
#include <linux/membarrier.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "bits.h"
#include "os_parts.h"

namespace ashlar::os {

namespace {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool kWindowsAllowed = false;  // sanitizers own most of the address space
#else
constexpr bool kWindowsAllowed = true;
#endif

// Far from where Linux puts programs, stacks, libraries and brk on x86-64, and above the shadow
// memory of sanitizers. Other architectures with 47 or more address bits can share it.
constexpr std::uintptr_t kWindowsBegin = 0x2000'0000'0000;
constexpr std::uintptr_t kWindowsEnd = 0x3fff'ffff'ffff;

constexpr Bytes kSmallestReservation = 8 * kMiB;
constexpr Bytes kLargestReservation = 64 * kGiB;

// 64 random bits that the kernel gave this process at exec; no system call.
std::uint64_t random_bits(unsigned attempt) {
  const auto* seed = reinterpret_cast<const std::uint64_t*>(::getauxval(AT_RANDOM));
  std::uint64_t x = (seed != nullptr ? seed[1] : 0) + attempt * 0x9e37'79b9'7f4a'7c15;
  x ^= x >> 31;
  x *= 0xbf58'476d'1ce4'e5b9;  // a step of splitmix64 (Steele, Lea, Flood 2014)
  return x ^ (x >> 29);
}

bool was_sandboxed_at_start = false;

bool is_sandboxed() {
  KeepErrno keep;
  return ::syscall(SYS_prctl, PR_GET_SECCOMP, 0, 0, 0, 0) > 0;
}

}  // namespace

Commit Region::commit(Bytes offset, Bytes length, bool replace) const {
  if (length == 0 || backing == Backing::ready) return Commit::done;
  KeepErrno keep;
  if (backing == Backing::sourced) {
    const bool done =
        source->commit == nullptr || source->commit(source->context, base + offset, length) == 0;
    return done ? Commit::done : Commit::no_memory;
  }
  const bool ours = replace || backing == Backing::reserved;
  const int fixed = ours ? MAP_FIXED : MAP_FIXED_NOREPLACE;
  std::byte* const wanted = base + offset;
  std::byte* const got = map(wanted, length, PROT_READ | PROT_WRITE, fixed);
  if (got == nullptr) return errno == EEXIST ? Commit::taken : Commit::no_memory;
  if (got != wanted) {  // a layer below that takes the flag for a hint
    ::syscall(SYS_munmap, got, length);
    return Commit::taken;
  }
  name_mapping(wanted, length);
  return Commit::done;
}

bool Region::decommit(Bytes offset, Bytes length) const {
  if (length == 0 || !is_ours()) return true;
  KeepErrno keep;
  return backing == Backing::window ? ::syscall(SYS_munmap, base + offset, length) == 0
                                    : map(base + offset, length, PROT_NONE, MAP_FIXED) != nullptr;
}

bool Region::purge(void* address, Bytes length) const {
  if (backing != Backing::sourced) return os::purge(address, length);
  KeepErrno keep;
  return source->purge != nullptr && source->purge(source->context, address, length) == 0;
}

Region reserve_region(Bytes bytes, unsigned attempt) {
  KeepErrno keep;
  if (kWindowsAllowed && attempt < 4) {
    const Bytes places = (kWindowsEnd - kWindowsBegin - bytes) / kChunkBytes;
    const std::uintptr_t address = kWindowsBegin + random_bits(attempt) % places * kChunkBytes;
    return {reinterpret_cast<std::byte*>(address), bytes, Region::Backing::window};
  }
  for (Bytes size = kLargestReservation; size >= kSmallestReservation; size /= 2) {
    if (size > bytes) continue;
    std::byte* const mapped = map(nullptr, size + kChunkBytes, PROT_NONE, 0);
    if (mapped == nullptr) continue;
    const auto begin = align_up(reinterpret_cast<std::uintptr_t>(mapped), kChunkBytes);
    return {reinterpret_cast<std::byte*>(begin), size, Region::Backing::reserved};
  }
  return {};
}

bool purge(void* address, Bytes length) {
  KeepErrno keep;
  return ::syscall(SYS_madvise, address, length, MADV_DONTNEED) == 0;
}

void forbid_huge_pages(void* address, Bytes length) {
  KeepErrno keep;
  ::syscall(SYS_madvise, address, length, MADV_NOHUGEPAGE);
}

void ask_for_huge_pages(void* address, Bytes length) {
  KeepErrno keep;
  ::syscall(SYS_madvise, address, length, MADV_HUGEPAGE);
}

// "2f00000000-2f00200000 rw-p …" opens the account of a mapping, "AnonHugePages:      2048 kB" is
// one of its lines. Lines may be longer than what is looked at here.
Bytes huge_page_bytes(const void* address, Bytes length) {
  constexpr std::string_view kKey = "AnonHugePages:";
  const int file = open_to_read("/proc/self/smaps");
  if (file < 0) return 0;
  KeepErrno keep;
  const auto begin = reinterpret_cast<std::uintptr_t>(address);
  char buffer[2048];
  char line[64];
  Bytes filled = 0;
  Bytes kib = 0;
  bool inside = false;
  const auto end_line = [&] {
    const std::string_view text(line, filled);
    filled = 0;
    if (text.starts_with(kKey)) {
      Bytes n = 0;
      for (const char c : text) {
        if (c >= '0' && c <= '9') n = n * 10 + static_cast<Bytes>(c - '0');
      }
      if (inside) kib += n;
      return;
    }
    std::uintptr_t at = 0;
    for (const char c : text) {
      if (c == '-') {
        inside = at - begin < length;
        return;
      }
      const bool digit = c >= '0' && c <= '9';
      if (!digit && (c < 'a' || c > 'f')) return;
      at = at << 4 | static_cast<unsigned>(digit ? c - '0' : c - 'a' + 10);
    }
  };
  for (long got; (got = ::syscall(SYS_read, file, buffer, sizeof buffer)) > 0;) {
    for (long i = 0; i < got; i++) {
      if (buffer[i] == '\n') {
        end_line();
      } else if (filled < sizeof line) {
        line[filled++] = buffer[i];
      }
    }
  }
  close(file);
  return kib * kKiB;
}

Bytes resident_bytes(const void* address, Bytes length) {
  KeepErrno keep;
  unsigned char present[kPagesPerChunk];
  const auto* at = static_cast<const std::byte*>(address);
  Bytes pages = 0;
  while (length != 0) {
    const Bytes step = length < kChunkBytes ? length : kChunkBytes;
    if (::syscall(SYS_mincore, at, step, present) == 0) {
      for (Bytes i = 0; i < divide_up(step, kPageBytes); i++) pages += present[i] & 1;
    }
    at += step;
    length -= step;
  }
  return pages * kPageBytes;
}

namespace {

// The kernel reads a signal mask from there and then finds that it was not told what to do with it:
// EINVAL. Fifteen times as fast as process_vm_readv(2).
bool is_readable(std::uintptr_t address) {
  constexpr long kNothing = -1;
  constexpr Bytes kMaskBytes = 8;
  const std::uintptr_t mask = align_down(address, kMaskBytes);
  return ::syscall(SYS_rt_sigprocmask, kNothing, mask, nullptr, kMaskBytes) != 0 && errno == EINVAL;
}

}  // namespace

Bytes readable_bytes(std::uintptr_t begin, Bytes length) {
  KeepErrno keep;
  const std::uintptr_t wanted = begin + length;
  std::uintptr_t end = begin;
  while (end < wanted && is_readable(end)) end = align_down(end, kPageBytes) + kPageBytes;
  return (end < wanted ? end : wanted) - begin;
}

void copy_unseen(void* to, std::uintptr_t from, Bytes length) {
  asm volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(length) : : "memory");
}

// The kernel puts random bytes below a process's arguments and environment.
std::uintptr_t end_of_first_stack() { return ::getauxval(AT_RANDOM); }

std::atomic<std::uint32_t>* map_fork_marker() {
  KeepErrno keep;
  std::byte* const page = map(nullptr, kPageBytes, PROT_READ | PROT_WRITE, 0);
  if (page == nullptr) return nullptr;
  if (::syscall(SYS_madvise, page, kPageBytes, MADV_WIPEONFORK) != 0) {
    ::syscall(SYS_munmap, page, kPageBytes);
    return nullptr;
  }
  name_mapping(page, kPageBytes);
  return reinterpret_cast<std::atomic<std::uint32_t>*>(page);
}

void futex_wait(std::atomic<std::uint32_t>& word, std::uint32_t expected, std::uint32_t ms) {
  KeepErrno keep;
  const timespec limit{ms / 1000, ms % 1000 * 1'000'000L};
  // Without futexes (seccomp) this is a polite spin.
  if (::syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, expected, &limit, nullptr, 0) == -1 &&
      errno != EAGAIN && errno != EINTR && errno != ETIMEDOUT) {
    ::syscall(SYS_sched_yield);
  }
}

void futex_wake_one(std::atomic<std::uint32_t>& word) {
  KeepErrno keep;
  ::syscall(SYS_futex, &word, FUTEX_WAKE_PRIVATE, 1, nullptr, nullptr, 0);
}

bool barrier_in_all_threads() {
  KeepErrno keep;
  if (has_locked_itself_in()) return false;
  if (::syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0) == 0) return true;
  // Not registered yet, or not in this child of a fork.
  return errno == EPERM &&
         ::syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0) == 0 &&
         ::syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0) == 0;
}

void name_thread(const char* name) {
  KeepErrno keep;
  ::syscall(SYS_prctl, PR_SET_NAME, name, 0, 0, 0);
}

std::uint32_t thread_number() { return static_cast<std::uint32_t>(::syscall(SYS_gettid)); }
std::uint32_t process_number() { return static_cast<std::uint32_t>(::syscall(SYS_getpid)); }

std::uint32_t processors() {
  KeepErrno keep;
  std::uint64_t mask[128];  // of 8192, as many as a kernel may be built for
  const long bytes = ::syscall(SYS_sched_getaffinity, 0, sizeof mask, mask);
  std::uint32_t count = 0;
  for (long i = 0; i < bytes / 8; i++) count += static_cast<std::uint32_t>(std::popcount(mask[i]));
  return count == 0 ? 1 : count;
}

void note_sandbox() { was_sandboxed_at_start = is_sandboxed(); }

bool has_locked_itself_in() { return !was_sandboxed_at_start && is_sandboxed(); }

namespace {

// Where programs do not expect to find the numbers of their own files.
constexpr int kLeastNumber = 200;

}  // namespace

int open_to_read(std::string_view path) {
  KeepErrno keep;
  char terminated[512];
  if (path.size() >= sizeof terminated) return -1;
  terminated[path.copy(terminated, path.size())] = '\0';
  const long low = ::syscall(SYS_openat, AT_FDCWD, terminated, O_RDONLY | O_CLOEXEC);
  if (low < 0) return -1;
  const long high = ::syscall(SYS_fcntl, low, F_DUPFD_CLOEXEC, kLeastNumber);
  ::syscall(SYS_close, low);
  return static_cast<int>(high);
}

int duplicate(int file) {
  KeepErrno keep;
  return static_cast<int>(::syscall(SYS_fcntl, file, F_DUPFD_CLOEXEC, kLeastNumber));
}

FileIdentity identity_of(int file) {
  KeepErrno keep;
  struct stat about;
  if (file < 0 || ::fstat(file, &about) != 0) return {};
  return {true, about.st_dev, about.st_ino};
}

Bytes read_at_start(int file, char* buffer, Bytes room) {
  if (file < 0) return 0;
  KeepErrno keep;
  const long length = ::syscall(SYS_pread64, file, buffer, room, 0L);
  return length > 0 ? static_cast<Bytes>(length) : 0;
}

void close(int file) {
  if (file < 0) return;
  KeepErrno keep;
  ::syscall(SYS_close, file);
}

void pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

namespace {

constexpr std::uint64_t to_us(const timespec& t) {
  return static_cast<std::uint64_t>(t.tv_sec) * 1'000'000 +
         static_cast<std::uint64_t>(t.tv_nsec) / 1000;
}

std::uint64_t read_us(clockid_t clock) {
  timespec t{};
  ::clock_gettime(clock, &t);
  return to_us(t);
}

}  // namespace

std::uint64_t now_ms() { return read_us(CLOCK_MONOTONIC_COARSE) / 1000; }
std::uint64_t now_us() { return read_us(CLOCK_MONOTONIC); }

std::uint64_t thread_ran_us() {
  if (has_locked_itself_in()) return now_us();
  const int saved_errno = errno;
  timespec t{};
  const bool known = ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t) == 0;
  errno = saved_errno;
  return known ? to_us(t) : now_us();
}

}  // namespace ashlar::os
