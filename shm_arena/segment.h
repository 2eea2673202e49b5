// SPDX-License-Identifier: MIT
// L3 · segment: a shared memory object and this process's mapping of it.
//
// What:    makes, opens and maps segments of three kinds: named (a file in /dev/shm, as shm_open
//          makes them), anonymous (memfd), and a regular file; or a part of somebody else's file.
//          Gives ranges of it memory and takes that away again. Holds places, which the kernel
//          gives up when the process dies.
// How:     the file has its full size from the start and hardly any memory. A range gets memory by
//          fallocate before anybody touches it, so a full /dev/shm is an error here and never a
//          SIGBUS later; whoever has the segment mapped sees the memory with no call. A segment
//          gets its name when it is complete, by one link().
// Trust:   a header is read once, by pread, and checked. Before a file descriptor is used it is
//          compared with the segment's inode: a program may have closed all of them (closefrom) and
//          opened something else under the number. Without it memory still comes and goes, by
//          madvise.
// Errors:  functions return 0 or an errno value.
// Threads: any, after the segment was made or opened.
#pragma once

#include <sys/types.h>

#include "layout.h"

namespace ashlar::shm {

class Segment {
 public:
  enum class Kind : std::uint8_t { named, anonymous, file };

  // `where`: a name, a path, or nothing. The calling thread must not be in a signal handler.
  [[nodiscard]] int create(Kind kind, const char* where, Bytes max_bytes, bool fixed_size);
  [[nodiscard]] int open(Kind kind, const char* where, bool read_only);
  [[nodiscard]] int open_fd(int fd, bool read_only);
  // In [origin, origin + bytes) of a file; a multiple of a page, not 0. `fd` is copied. What was
  // there is lost. EINVAL: there is no room for one chunk.
  [[nodiscard]] int create_at(int fd, Offset origin, Bytes bytes);
  [[nodiscard]] int open_at(int fd, Offset origin);
  void close();
  [[nodiscard]] static int unlink(const char* name);

  // Memory for [at, at + bytes); what has some keeps it. ENOMEM: there is none.
  [[nodiscard]] int back(Offset at, Bytes bytes) const;
  // The opposite; the range reads as zero, if anybody reads it.
  void unback(Offset at, Bytes bytes) const;

  // Locks place `i` for this process, until it dies, execs, or calls release_place. Not inherited
  // by fork; not lost by closing file descriptors. EBUSY: somebody has it.
  [[nodiscard]] int hold_place(std::uint32_t i, void*& held) const;
  static void release_place(void* held);
  // True also when that cannot be found out.
  bool is_held(std::uint32_t i) const;

  std::byte* base() const { return base_; }
  const Geometry& geometry() const { return geometry_; }
  std::uint32_t max_chunks() const { return max_chunks_; }
  bool fixed_size() const { return fixed_size_; }
  bool read_only() const { return read_only_; }
  int fd() const;  // −1: it was closed
  // Whether that memory, which is mapped, begins with the header of this segment.
  bool begins_at(const void* memory) const;

  template <class T>
  T& at(Offset offset) const {
    return *reinterpret_cast<T*>(base_ + offset);
  }

 private:
  int create_in(int directory, const char* name, Bytes max_bytes, bool fixed_size);
  int fill(Bytes max_bytes, bool fixed_size);
  int found(std::uint32_t chunks, bool fixed_size);
  int adopt(bool read_only);
  int map();

  int fd_ = -1;
  dev_t device_ = 0;
  ino_t inode_ = 0;
  Offset origin_ = 0;  // where in the file it begins; 0: the file is its own
  std::uint64_t id_[2] = {};
  std::byte* base_ = nullptr;
  Geometry geometry_;
  std::uint32_t max_chunks_ = 0;
  bool fixed_size_ = false;
  bool read_only_ = false;
};

}  // namespace ashlar::shm
