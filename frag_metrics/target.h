// SPDX-License-Identifier: MIT
// target: memory that is not ours: a live process, a core file, or the file of a shared arena.
//
// What:    mappings, bytes, and what the kernel knows of pages. A target may be corrupt, hostile,
//          or gone in the next moment: every call may fail, none follows anything it reads.
// How:     bytes are copied from pages that are in memory or in swap only, and others read as
//          zero; so a look from outside never makes the target touch a page it did not have.
// Errors:  Error, with a sentence for people.
// Threads: one at a time.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "snapshot.h"

namespace ashlar::frag {

struct Error : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// One line of /proc/PID/maps or of a core file's list of files.
struct Mapping {
  std::uint64_t begin = 0;
  std::uint64_t end = 0;
  std::uint64_t offset = 0;  // in the file
  bool writable = false;
  std::string path;  // empty: anonymous
};

// What is in memory of a page.
struct Residency {
  bool resident : 1 = false;
  bool swapped : 1 = false;
  bool huge : 1 = false;
};

// A name that others have chosen, without what would command a terminal.
std::string printable(std::string name);

// The descriptor of an open file, closed at the end. -1: none.
class File {
 public:
  explicit File(int fd = -1) : fd_(fd) {}
  File(File&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  File& operator=(File&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  ~File();
  explicit operator bool() const { return fd_ >= 0; }
  int fd() const { return fd_; }

 private:
  int fd_;
};

// What the file system says of the file of a shared arena.
struct SegmentFile {
  std::uint64_t file_bytes = 0;
  std::uint64_t allocated_bytes = 0;  // so much of it has memory, or disk
  bool in_memory = false;             // it is of a tmpfs, or a memfd
};

class Target {
 public:
  virtual ~Target() = default;

  // Copies out.size() bytes; what is not in memory reads as zero. False: it cannot be read.
  [[nodiscard]] bool read(std::uint64_t address, std::span<std::byte> out);
  // The same for one plain value.
  template <class T>
  [[nodiscard]] bool read_value(std::uint64_t address, T& value) {
    return read(address, std::as_writable_bytes(std::span(&value, 1)));
  }
  // What is in memory of out.size() pages from `address`, a multiple of a page, on.
  virtual void residency(std::uint64_t address, std::span<Residency> out) = 0;
  // Whether residency() says so of each page.
  virtual bool knows_huge_pages() const = 0;
  // Bytes of huge pages in mappings between these addresses; none: nobody knows.
  virtual std::optional<std::uint64_t> huge_bytes([[maybe_unused]] std::uint64_t begin,
                                                  [[maybe_unused]] std::uint64_t end) const {
    return std::nullopt;
  }

  const std::vector<Mapping>& mappings() const { return mappings_; }
  // The file of a mapping, as the target sees it; none when it is gone.
  virtual File open(const Mapping& mapping) const = 0;

  // Of a shared arena's file, whose addresses are offsets; of any other target, none.
  virtual std::optional<SegmentFile> segment() const { return std::nullopt; }
  // Whether somebody holds a lock on that byte of the file. True also when nobody can tell.
  virtual bool is_locked([[maybe_unused]] std::uint64_t offset) const { return true; }

  // Whether it is a process that is no more, or a zombie.
  virtual bool has_ended() const { return false; }
  // What people call it: the subject of a complaint.
  virtual std::string name() const = 0;
  // Throws an Error about it.
  [[noreturn]] void complain(const std::string& why) const { throw Error(name() + ": " + why); }
  // Fills in where the snapshot comes from.
  virtual void describe(Snapshot& snapshot) const = 0;

 protected:
  // Copies bytes that lie in resident or swapped pages.
  virtual bool copy(std::uint64_t address, std::span<std::byte> out) = 0;

  std::vector<Mapping> mappings_;
};

// A live process. It is not stopped and not changed. `ask_for_scan`: use PAGEMAP_SCAN if there.
std::unique_ptr<Target> open_process(std::int64_t pid, bool ask_for_scan = true);
// An ELF core file.
std::unique_ptr<Target> open_core(const std::string& path);
// The file of an arena in shared memory. `name`: what people call it.
std::unique_ptr<Target> open_segment(const std::string& path, std::string name);
// Whether a file begins like such an arena.
bool is_segment(const std::string& path);

// Asks a process to give back what it can, and waits. The heap answers the next time that a thread
// of it allocates or frees a little; false: none did within `timeout_ms`.
bool ask_to_trim(std::int64_t pid, std::uint64_t root, int timeout_ms);

}  // namespace ashlar::frag
