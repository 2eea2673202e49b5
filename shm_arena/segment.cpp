// SPDX-License-Identifier: MIT
#include "segment.h"

#include <cerrno>
#include <climits>
#include <cstring>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

namespace ashlar::shm {

namespace {

constexpr char kNamedDirectory[] = "/dev/shm/";

#ifndef MADV_POPULATE_WRITE
constexpr int MADV_POPULATE_WRITE = 23;  // Linux 5.14
#endif

// Where a segment of that kind and name lies: a directory, and a file in it.
struct Path {
  char text[PATH_MAX];
  const char* file;

  // 0, EINVAL or ENAMETOOLONG.
  int set(Segment::Kind kind, const char* where) {
    if (where == nullptr || *where == '\0') return EINVAL;
    const bool named = kind == Segment::Kind::named;
    if (named && *where == '/') where++;
    const Bytes length = std::strlen(where);
    const Bytes prefix = named ? sizeof kNamedDirectory - 1 : 0;
    if (prefix + length >= sizeof text) return ENAMETOOLONG;
    std::memcpy(text, kNamedDirectory, prefix);
    std::memcpy(text + prefix, where, length + 1);
    const char* const slash = std::strrchr(text, '/');
    file = slash == nullptr ? text : slash + 1;
    if (std::strlen(file) > NAME_MAX) return ENAMETOOLONG;
    if (*file == '\0' || std::strcmp(file, ".") == 0 || std::strcmp(file, "..") == 0) return EINVAL;
    return named && file != text + prefix ? EINVAL : 0;
  }
  int open_directory() const {
    char directory[PATH_MAX] = ".";
    if (file != text) {
      const auto length = static_cast<Bytes>(file - text);
      std::memcpy(directory, text, length);
      directory[length] = '\0';
    }
    return ::open(directory, O_PATH | O_DIRECTORY | O_CLOEXEC);
  }
};

// "/proc/self/fd/N"
struct FdPath {
  char text[40] = "/proc/self/fd/";

  explicit FdPath(int fd) {
    char* end = text + std::strlen(text);
    int digits = 1;
    for (int n = fd; n >= 10; n /= 10) digits++;
    for (int i = digits; i-- > 0; fd /= 10) end[i] = static_cast<char>('0' + fd % 10);
    end[digits] = '\0';
  }
};

std::uint64_t checksum(const Header& header) {
  return hash_bytes(reinterpret_cast<const unsigned char*>(&header), offsetof(Header, checksum));
}

// A name that nobody has, in case the file system knows no files without one.
void make_temporary_name(char (&name)[40]) {
  std::uint64_t random = 0;
  static_cast<void>(::getrandom(&random, sizeof random, 0));
  std::memcpy(name, ".ashlar-", 8);
  for (int i = 0; i < 16; i++, random >>= 4) name[8 + i] = "0123456789abcdef"[random & 15];
  name[24] = '\0';
}

int allocate(int fd, Offset at, Bytes bytes) {
  while (::fallocate(fd, 0, static_cast<off_t>(at), static_cast<off_t>(bytes)) != 0) {
    if (errno != EINTR) return errno;
  }
  return 0;
}

}  // namespace

// --- making -------------------------------------------------------------------------------------

int Segment::create(Kind kind, const char* where, Bytes max_bytes, bool fixed_size) {
  if (kind == Kind::anonymous) {
    fd_ = ::memfd_create("ashlar", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd_ < 0) return errno;
    int error = fill(max_bytes, fixed_size);
    // Nobody can cut it off under a reader. Its size never changes: memory comes by fallocate.
    if (error == 0 && ::fcntl(fd_, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0) {
      error = errno;
    }
    if (error != 0) close();
    return error;
  }
  Path path;
  if (const int error = path.set(kind, where); error != 0) return error;
  const int directory = path.open_directory();
  if (directory < 0) return errno;
  struct stat existing;
  const bool exists = ::fstatat(directory, path.file, &existing, AT_SYMLINK_NOFOLLOW) == 0;
  const int error = exists ? EEXIST : create_in(directory, path.file, max_bytes, fixed_size);
  ::close(directory);
  if (error != 0) close();
  return error;
}

int Segment::create_in(int directory, const char* name, Bytes max_bytes, bool fixed_size) {
  char temporary[40] = "";
  fd_ = ::openat(directory, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
  if (fd_ < 0) {
    if (errno != EOPNOTSUPP && errno != EISDIR && errno != ENOENT) return errno;
    make_temporary_name(temporary);
    fd_ = ::openat(directory, temporary, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd_ < 0) return errno;
  }
  int error = fill(max_bytes, fixed_size);
  if (error == 0) {
    const int linked = *temporary != '\0' ? ::linkat(directory, temporary, directory, name, 0)
                                          : ::linkat(AT_FDCWD, FdPath(fd_).text, directory, name,
                                                     AT_SYMLINK_FOLLOW);
    if (linked != 0) error = errno;
  }
  if (*temporary != '\0') ::unlinkat(directory, temporary, 0);
  return error;
}

int Segment::fill(Bytes max_bytes, bool fixed_size) {
  const Bytes chunks = divide_up(max_bytes, kChunkBytes);
  if (chunks == 0 || chunks > kMostChunks) return EINVAL;
  const Geometry geometry(static_cast<std::uint32_t>(chunks));
  if (::ftruncate(fd_, static_cast<off_t>(geometry.end)) != 0) return errno;
  return found(static_cast<std::uint32_t>(chunks), fixed_size);
}

int Segment::create_at(int fd, Offset origin, Bytes bytes) {
  Bytes chunks = bytes / kChunkBytes;
  if (chunks > kMostChunks) chunks = kMostChunks;
  while (chunks != 0 && Geometry(static_cast<std::uint32_t>(chunks), false).end > bytes) chunks--;
  struct stat status;
  if (::fstat(fd, &status) != 0) return errno;
  const auto file_bytes = static_cast<Bytes>(status.st_size);
  if (chunks == 0 || file_bytes < origin || file_bytes - origin < bytes) return EINVAL;
  fd_ = ::fcntl(fd, F_DUPFD_CLOEXEC, 3);
  if (fd_ < 0) return errno;
  origin_ = origin;
  int error = 0;
  // A hole reads as zero.
  if (::fallocate(fd_, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, static_cast<off_t>(origin),
                  static_cast<off_t>(bytes)) != 0) {
    error = errno;
  }
  if (error == 0) error = found(static_cast<std::uint32_t>(chunks), false);
  if (error != 0) close();
  return error;
}

// A complete segment in fd_, where all is zero; mapped.
int Segment::found(std::uint32_t chunks, bool fixed_size) {
  Header header{};
  header.magic = Header::kMagic;
  header.version = Header::kVersion;
  header.layout_hash = layout_hash();
  header.max_chunks = chunks;
  header.flags = fixed_size ? Header::kFixedSize : 0;
  const Geometry geometry(header.max_chunks, origin_ == 0);
  header.segment_bytes = geometry.end;
  static_cast<void>(::getrandom(header.id, sizeof header.id, 0));
  header.checksum = checksum(header);

  const Bytes needed = fixed_size ? geometry.handles : Geometry::kLaneCursors;
  if (const int error = allocate(fd_, origin_, needed); error != 0) {
    return error == ENOSPC ? ENOMEM : error;
  }
  if (::pwrite(fd_, &header, sizeof header, static_cast<off_t>(origin_)) != sizeof header) {
    return errno != 0 ? errno : EIO;
  }
  return adopt(false);
}

// --- opening ------------------------------------------------------------------------------------

int Segment::open(Kind kind, const char* where, bool read_only) {
  Path path;
  if (const int error = path.set(kind, where); error != 0) return error;
  // O_NONBLOCK: a pipe of that name must not keep us waiting.
  fd_ = ::open(path.text, (read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
  if (fd_ < 0) return errno == ELOOP ? EPROTO : errno;
  const int error = adopt(read_only);
  if (error != 0) close();
  return error;
}

int Segment::open_fd(int fd, bool read_only) {
  fd_ = ::fcntl(fd, F_DUPFD_CLOEXEC, 3);
  if (fd_ < 0) return errno;
  const int access = ::fcntl(fd_, F_GETFL) & O_ACCMODE;
  const bool allowed = access == O_RDWR || (read_only && access == O_RDONLY);
  const int error = allowed ? adopt(read_only) : EACCES;
  if (error != 0) close();
  return error;
}

int Segment::open_at(int fd, Offset origin) {
  origin_ = origin;
  return open_fd(fd, false);
}

// fd_ is somebody's file: is there a segment of ours in it?
int Segment::adopt(bool read_only) {
  struct stat status;
  if (::fstat(fd_, &status) != 0) return errno;
  if (!S_ISREG(status.st_mode)) return EPROTO;
  Header header;
  if (::pread(fd_, &header, sizeof header, static_cast<off_t>(origin_)) != sizeof header) {
    return EPROTO;
  }
  if (header.magic != Header::kMagic || header.version != Header::kVersion ||
      header.layout_hash != layout_hash() || header.checksum != checksum(header)) {
    return EPROTO;
  }
  if (header.max_chunks == 0 || header.max_chunks > kMostChunks) return EPROTO;
  geometry_ = Geometry(header.max_chunks, origin_ == 0);
  const auto file_bytes = static_cast<Bytes>(status.st_size);
  const bool fits = origin_ == 0 ? file_bytes == geometry_.end
                                 : file_bytes >= origin_ && file_bytes - origin_ >= geometry_.end;
  if (header.segment_bytes != geometry_.end || !fits) return EPROTO;
  device_ = status.st_dev;
  inode_ = status.st_ino;
  std::memcpy(id_, header.id, sizeof id_);
  max_chunks_ = header.max_chunks;
  fixed_size_ = (header.flags & Header::kFixedSize) != 0;
  read_only_ = read_only;
  return map();
}

// At a multiple of a chunk, so that all alignments up to that hold in every process.
int Segment::map() {
  const Bytes room = geometry_.end + kChunkBytes;
  void* const reserved =
      ::mmap(nullptr, room, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (reserved == MAP_FAILED) return errno;
  auto* const begin = static_cast<std::byte*>(reserved);
  auto* const aligned = reinterpret_cast<std::byte*>(
      align_up(reinterpret_cast<std::uintptr_t>(reserved), kChunkBytes));
  const int protection = PROT_READ | (read_only_ ? 0 : PROT_WRITE);
  if (::mmap(aligned, geometry_.end, protection, MAP_SHARED | MAP_FIXED | MAP_NORESERVE, fd_,
             static_cast<off_t>(origin_)) == MAP_FAILED) {
    const int error = errno;
    ::munmap(reserved, room);
    return error;
  }
  const auto before = static_cast<Bytes>(aligned - begin);
  if (before != 0) ::munmap(begin, before);
  if (before != kChunkBytes) ::munmap(aligned + geometry_.end, kChunkBytes - before);
  base_ = aligned;
  return 0;
}

void Segment::close() {
  if (base_ != nullptr) ::munmap(base_, geometry_.end);
  base_ = nullptr;
  if (fd_ >= 0 && (inode_ == 0 || fd() >= 0)) ::close(fd_);
  fd_ = -1;
}

int Segment::unlink(const char* name) {
  Path path;
  if (const int error = path.set(Kind::named, name); error != 0) return error;
  return ::unlink(path.text) == 0 ? 0 : errno;
}

int Segment::fd() const {
  struct stat status;
  const bool ours =
      ::fstat(fd_, &status) == 0 && status.st_dev == device_ && status.st_ino == inode_;
  return ours ? fd_ : -1;
}

bool Segment::begins_at(const void* memory) const {
  return std::memcmp(&static_cast<const Header*>(memory)->id, id_, sizeof id_) == 0;
}

// --- memory -------------------------------------------------------------------------------------

int Segment::back(Offset at, Bytes bytes) const {
  const int saved_errno = errno;
  int error = EBADF;
  if (const int file = fd(); file >= 0) error = allocate(file, origin_ + at, bytes);
  // No descriptor, or a file system without fallocate.
  if (error == EBADF || error == EOPNOTSUPP) {
    const bool populated = ::madvise(base_ + at, bytes, MADV_POPULATE_WRITE) == 0;
    error = populated ? 0 : ENOMEM;
  }
  errno = saved_errno;
  return error == 0 ? 0 : ENOMEM;
}

void Segment::unback(Offset at, Bytes bytes) const {
  const int saved_errno = errno;
  const int file = fd();
  if (file < 0 || ::fallocate(file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                              static_cast<off_t>(origin_ + at), static_cast<off_t>(bytes)) != 0) {
    ::madvise(base_ + at, bytes, MADV_REMOVE);
  }
  errno = saved_errno;
}

// --- places -------------------------------------------------------------------------------------

// The lock belongs to an open file description that only one mapping refers to: closing file
// descriptors cannot drop it, a child of fork does not have it, and the kernel ends it with the
// process's address space.
int Segment::hold_place(std::uint32_t i, void*& held) const {
  const int file = fd();
  if (file < 0) return EBADF;
  const int own = ::open(FdPath(file).text, O_RDWR | O_CLOEXEC);
  if (own < 0) return errno;
  int error = 0;
  void* const page = ::mmap(nullptr, kPageBytes, PROT_READ, MAP_SHARED, own, 0);
  if (page == MAP_FAILED) {
    error = errno;
  } else {
    struct flock lock {};
    lock.l_type = F_WRLCK;
    lock.l_start = static_cast<off_t>(kPlaces + i);
    lock.l_len = 1;
    if (::madvise(page, kPageBytes, MADV_DONTFORK) != 0 || ::fcntl(own, F_OFD_SETLK, &lock) != 0) {
      error = errno == EAGAIN || errno == EACCES ? EBUSY : errno;
      ::munmap(page, kPageBytes);
    } else {
      held = page;
    }
  }
  ::close(own);
  return error;
}

void Segment::release_place(void* held) { ::munmap(held, kPageBytes); }

// That a lock is free is believed only of the segment's own file. This is looked at afterwards: a
// descriptor that is ours now was so when we asked.
bool Segment::is_held(std::uint32_t i) const {
  const int saved_errno = errno;
  struct flock lock {};
  lock.l_type = F_WRLCK;
  lock.l_start = static_cast<off_t>(kPlaces + i);
  lock.l_len = 1;
  const bool free = ::fcntl(fd_, F_OFD_GETLK, &lock) == 0 && lock.l_type == F_UNLCK && fd() >= 0;
  errno = saved_errno;
  return !free;
}

}  // namespace ashlar::shm
