// SPDX-License-Identifier: MIT
// The file of a shared arena as a target: in /dev/shm, behind a descriptor, or on a disk.
//
// Its addresses are offsets in the file. Bytes are copied by pread(2), never through a mapping: a
// file that is cut short meanwhile gives an error and no signal, and a hole in a tmpfs stays one.
#include <algorithm>
#include <cerrno>
#include <cstring>
#include <ctime>
#include <fcntl.h>
#include <linux/magic.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <unistd.h>

#include "../shm_arena/layout.h"
#include "target.h"

namespace ashlar::frag {

namespace {

class Segment final : public Target {
 public:
  Segment(const std::string& path, std::string name) : name_(std::move(name)) {
    file_ = File(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
    if (!file_) throw Error(name_ + ": " + std::strerror(errno));
    struct stat status {};
    if (::fstat(file_.fd(), &status) != 0 || !S_ISREG(status.st_mode)) {
      throw Error(name_ + ": not a regular file");
    }
    file_bytes_ = static_cast<std::uint64_t>(status.st_size);
    mapping_ = ::mmap(nullptr, file_bytes_, PROT_NONE, MAP_SHARED | MAP_NORESERVE, file_.fd(), 0);
  }
  Segment(const Segment&) = delete;
  ~Segment() override {
    if (mapping_ != MAP_FAILED) ::munmap(mapping_, file_bytes_);
  }

  void residency(std::uint64_t address, std::span<Residency> out) override {
    std::ranges::fill(out, Residency{});
    // In runs of data and holes, as the file system tells them.
    const std::uint64_t end = address + out.size() * kPageBytes;
    for (std::uint64_t at = address; at < end;) {
      const off_t data = ::lseek(file_.fd(), static_cast<off_t>(at), SEEK_DATA);
      if (data < 0 || static_cast<std::uint64_t>(data) >= end) return;
      const off_t hole = ::lseek(file_.fd(), data, SEEK_HOLE);
      const std::uint64_t from = static_cast<std::uint64_t>(data) / kPageBytes * kPageBytes;
      at = hole > data ? std::min(static_cast<std::uint64_t>(hole), end) : end;
      at = std::min((at + kPageBytes - 1) / kPageBytes * kPageBytes, end);
      read_cached(from, out.subspan((from - address) / kPageBytes, (at - from) / kPageBytes));
    }
  }
  bool knows_huge_pages() const override { return false; }
  File open(const Mapping&) const override { return File(); }

  std::optional<SegmentFile> segment() const override {
    constexpr std::uint64_t kBlockBytes = 512;  // whatever st_blksize says
    struct stat status {};
    struct statfs system {};
    if (::fstat(file_.fd(), &status) != 0 || ::fstatfs(file_.fd(), &system) != 0) {
      throw Error(name_ + ": " + std::strerror(errno));
    }
    return SegmentFile{
        .file_bytes = static_cast<std::uint64_t>(status.st_size),
        .allocated_bytes = static_cast<std::uint64_t>(status.st_blocks) * kBlockBytes,
        .in_memory = system.f_type == TMPFS_MAGIC || system.f_type == HUGETLBFS_MAGIC};
  }

  bool is_locked(std::uint64_t offset) const override {
    struct flock lock {};
    lock.l_type = F_WRLCK;
    lock.l_start = static_cast<off_t>(offset);
    lock.l_len = 1;
    return ::fcntl(file_.fd(), F_OFD_GETLK, &lock) != 0 || lock.l_type != F_UNLCK;
  }

  std::string name() const override { return name_; }
  void describe(Snapshot& snapshot) const override {
    snapshot.source = "shm";
    snapshot.program = name_;
    snapshot.unix_time = ::time(nullptr);
  }

 protected:
  bool copy(std::uint64_t address, std::span<std::byte> out) override {
    return ::pread(file_.fd(), out.data(), out.size(), static_cast<off_t>(address)) ==
           static_cast<ssize_t>(out.size());
  }

 private:
  // Of pages that have data. What is not in memory lies on the disk, or in swap.
  void read_cached(std::uint64_t offset, std::span<Residency> out) {
    constexpr std::size_t kStep = 4096;
    unsigned char in_memory[kStep];
    for (std::size_t done = 0; done < out.size(); done += kStep) {
      const std::size_t step = std::min(kStep, out.size() - done);
      const bool known = mapping_ != MAP_FAILED &&
                         ::mincore(static_cast<std::byte*>(mapping_) + offset + done * kPageBytes,
                                   step * kPageBytes, in_memory) == 0;
      for (std::size_t i = 0; i < step; i++) {
        const bool resident = !known || (in_memory[i] & 1) != 0;
        out[done + i].resident = resident;
        out[done + i].swapped = !resident;
      }
    }
  }

  std::string name_;
  File file_;
  std::uint64_t file_bytes_ = 0;
  void* mapping_ = MAP_FAILED;  // for mincore(2) alone
};

}  // namespace

std::unique_ptr<Target> open_segment(const std::string& path, std::string name) {
  return std::make_unique<Segment>(path, std::move(name));
}

bool is_segment(const std::string& path) {
  const File file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  std::uint64_t magic = 0;
  return file && ::pread(file.fd(), &magic, sizeof magic, 0) == sizeof magic &&
         magic == shm::Header::kMagic;
}

}  // namespace ashlar::frag
