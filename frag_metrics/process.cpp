// SPDX-License-Identifier: MIT
// A live process as a target: process_vm_readv(2), and /proc/PID for the rest.
#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <ctime>
#include <fcntl.h>
#include <fstream>
#include <sstream>
#include <sys/ioctl.h>
#include <sys/uio.h>
#include <unistd.h>

#include "root.h"
#include "target.h"

namespace ashlar::frag {

namespace {

// The kernel's interface since 6.7; Debian 12's headers are older.
struct ScanRegion {
  std::uint64_t begin, end, categories;
};
struct ScanArguments {
  std::uint64_t size, flags, begin, end, walk_end, regions, regions_count, most_pages;
  std::uint64_t inverted, mask, any_of, returned;
};
constexpr std::uint64_t kScanPresent = 1 << 3;
constexpr std::uint64_t kScanSwapped = 1 << 4;
constexpr std::uint64_t kScanZeroPage = 1 << 5;
constexpr std::uint64_t kScanHuge = 1 << 6;
constexpr unsigned long kPagemapScan = _IOWR('f', 16, ScanArguments);

// Bits of an entry of /proc/PID/pagemap.
constexpr std::uint64_t kEntryPresent = std::uint64_t{1} << 63;
constexpr std::uint64_t kEntrySwapped = std::uint64_t{1} << 62;

std::string words(std::string_view what, std::int64_t pid, int error) {
  std::string text = "process " + std::to_string(pid) + ": ";
  if (error == ENOENT || error == ESRCH) return text + "there is none";
  text += std::string(what) + ": " + std::strerror(error);
  if (error == EPERM || error == EACCES) {
    text += "; run as root or as the same user, with kernel.yama.ptrace_scope 0";
  }
  return text;
}

class Process final : public Target {
 public:
  Process(std::int64_t pid, bool ask_for_scan) : pid_(pid), scans_(ask_for_scan) {
    directory_ = File(::open(("/proc/" + std::to_string(pid)).c_str(), O_DIRECTORY | O_CLOEXEC));
    if (!directory_) throw Error(words("/proc", pid, errno));
    pagemap_ = File(::openat(directory_.fd(), "pagemap", O_RDONLY | O_CLOEXEC));
    if (!pagemap_) throw Error(words("its memory cannot be read", pid, errno));
    read_mappings();
    scans_ = scans_ && scan(0x1000, std::span<Residency>());
  }

  void residency(std::uint64_t address, std::span<Residency> out) override {
    std::ranges::fill(out, Residency{});
    if (scans_) {
      scan(address, out);
    } else {
      read_entries(address, out);
    }
  }
  bool knows_huge_pages() const override { return scans_; }

  std::optional<std::uint64_t> huge_bytes(std::uint64_t begin, std::uint64_t end) const override {
    constexpr std::string_view kHuge = "AnonHugePages:";
    std::istringstream lines(text_of("smaps"));
    std::uint64_t bytes = 0;
    bool inside = false;
    bool any = false;
    for (std::string line; std::getline(lines, line);) {
      std::uint64_t from = 0;
      std::uint64_t to = 0;
      if (std::sscanf(line.c_str(), "%lx-%lx ", &from, &to) == 2) {
        inside = from < end && begin < to;
      } else if (inside && line.starts_with(kHuge)) {
        bytes += std::strtoull(line.c_str() + kHuge.size(), nullptr, 10) * 1024;
        any = true;
      }
    }
    return any ? std::optional(bytes) : std::nullopt;
  }

  File open(const Mapping& mapping) const override {
    // What the target sees under that name, in whatever namespace it lives.
    if (mapping.path.empty() || mapping.path[0] != '/') return File();
    const std::string path = "root" + mapping.path;
    return File(::openat(directory_.fd(), path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  }

  bool has_ended() const override { return text_of("maps").empty(); }
  std::string name() const override { return "process " + std::to_string(pid_); }
  void describe(Snapshot& snapshot) const override {
    snapshot.source = "process";
    snapshot.pid = pid_;
    snapshot.unix_time = ::time(nullptr);
    snapshot.program = text_of("comm");
    while (snapshot.program.ends_with('\n')) snapshot.program.pop_back();
    snapshot.program = printable(std::move(snapshot.program));
    std::istringstream rollup(text_of("smaps_rollup"));
    ProcessMemory memory;
    bool any = false;
    for (std::string line; std::getline(rollup, line);) {
      const auto take = [&](std::string_view name, std::uint64_t& bytes) {
        if (!line.starts_with(name)) return;
        bytes = std::strtoull(line.c_str() + name.size(), nullptr, 10) * 1024;
        any = true;
      };
      take("Rss:", memory.rss);
      take("Pss:", memory.pss);
      take("Swap:", memory.swap);
      take("AnonHugePages:", memory.anonymous_huge);
    }
    if (any) snapshot.process = memory;
    if (snapshot.program.empty()) throw Error(words("/proc", pid_, ESRCH));  // it ended meanwhile
  }

 protected:
  bool copy(std::uint64_t address, std::span<std::byte> out) override {
    const iovec here{out.data(), out.size()};
    const iovec there{reinterpret_cast<void*>(address), out.size()};
    const ssize_t n = ::process_vm_readv(static_cast<pid_t>(pid_), &here, 1, &there, 1, 0);
    if (n < 0 && errno != EFAULT) throw Error(words("its memory cannot be read", pid_, errno));
    return n == static_cast<ssize_t>(out.size());
  }

 private:
  std::string text_of(const char* name) const {
    constexpr std::size_t kMost = 64 << 20;
    const File file(::openat(directory_.fd(), name, O_RDONLY | O_CLOEXEC));
    std::string text;
    char buffer[1 << 14];
    while (file && text.size() < kMost) {
      const ssize_t n = ::read(file.fd(), buffer, sizeof buffer);
      if (n <= 0) break;
      text.append(buffer, static_cast<std::size_t>(n));
    }
    return text;
  }

  void read_mappings() {
    std::istringstream lines(text_of("maps"));
    for (std::string line; std::getline(lines, line);) {
      Mapping m;
      int path_at = 0;
      char rights[5] = "";
      if (std::sscanf(line.c_str(), "%lx-%lx %4s %lx %*s %*s %n", &m.begin, &m.end, rights,
                      &m.offset, &path_at) < 4) {
        continue;
      }
      m.writable = rights[1] == 'w';
      m.path = line.substr(std::min<std::size_t>(static_cast<std::size_t>(path_at), line.size()));
      mappings_.push_back(std::move(m));
    }
    if (mappings_.empty())
      throw Error(words("it has no memory of its own, or is gone", pid_, EINVAL));
  }

  // False: this kernel has no PAGEMAP_SCAN.
  bool scan(std::uint64_t address, std::span<Residency> out) {
    ScanRegion regions[64];
    ScanArguments arguments{};
    arguments.size = sizeof arguments;
    arguments.begin = address;
    arguments.end = address + std::max<std::size_t>(out.size(), 1) * kPageBytes;
    arguments.regions = reinterpret_cast<std::uintptr_t>(regions);
    arguments.regions_count = std::size(regions);
    arguments.any_of = kScanPresent | kScanSwapped;
    arguments.returned = kScanPresent | kScanSwapped | kScanZeroPage | kScanHuge;
    while (arguments.begin < arguments.end) {
      const int n = ::ioctl(pagemap_.fd(), kPagemapScan, &arguments);
      if (n < 0) return false;
      for (int i = 0; i < n; i++) {
        const ScanRegion& region = regions[i];
        const Residency seen{
            .resident = (region.categories & (kScanPresent | kScanZeroPage)) == kScanPresent,
            .swapped = (region.categories & kScanSwapped) != 0,
            .huge = (region.categories & kScanHuge) != 0};
        const std::uint64_t from = (std::max(region.begin, address) - address) / kPageBytes;
        const std::uint64_t to = (region.end - address) / kPageBytes;
        for (std::uint64_t page = from; page < to && page < out.size(); page++) out[page] = seen;
      }
      if (arguments.walk_end <= arguments.begin) break;
      arguments.begin = arguments.walk_end;
    }
    return true;
  }

  void read_entries(std::uint64_t address, std::span<Residency> out) {
    std::uint64_t entries[512];
    for (std::size_t done = 0; done < out.size();) {
      const std::size_t step = std::min(out.size() - done, std::size(entries));
      const auto position = static_cast<off_t>((address / kPageBytes + done) * sizeof entries[0]);
      const ssize_t n = ::pread(pagemap_.fd(), entries, step * sizeof entries[0], position);
      if (n <= 0) return;
      for (std::size_t i = 0; i < static_cast<std::size_t>(n) / sizeof entries[0]; i++) {
        out[done + i].resident = (entries[i] & kEntryPresent) != 0;
        out[done + i].swapped = (entries[i] & kEntrySwapped) != 0;
      }
      done += step;
    }
  }

  std::int64_t pid_;
  File directory_;
  File pagemap_;
  bool scans_;
};

}  // namespace

std::unique_ptr<Target> open_process(std::int64_t pid, bool ask_for_scan) {
  return std::make_unique<Process>(pid, ask_for_scan);
}

bool ask_to_trim(std::int64_t pid, std::uint64_t root, int timeout_ms) {
  // The target computes on these two words itself, so both are read and written as they are.
  const auto transfer = [&](std::uint64_t offset, std::uint32_t& word, auto call) {
    const iovec here{&word, sizeof word};
    const iovec there{reinterpret_cast<void*>(root + offset), sizeof word};
    if (call(static_cast<pid_t>(pid), &here, 1UL, &there, 1UL, 0UL) != sizeof word) {
      throw Error(words("it cannot be asked", pid, errno));
    }
  };
  std::uint32_t wanted = 0;
  transfer(offsetof(Root, trim_wanted), wanted, ::process_vm_readv);
  wanted++;
  transfer(offsetof(Root, trim_wanted), wanted, ::process_vm_writev);
  constexpr int kStepMs = 10;
  for (int waited = 0;; waited += kStepMs) {
    std::uint32_t done = 0;
    transfer(offsetof(Root, trim_done), done, ::process_vm_readv);
    if (done == wanted) return true;
    if (waited >= timeout_ms) return false;
    const timespec step{0, kStepMs * 1'000'000};
    ::nanosleep(&step, nullptr);
  }
}

}  // namespace ashlar::frag
