// SPDX-License-Identifier: MIT
#include "mappings.h"

#include <cinttypes>
#include <cstdio>
#include <cstring>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "units.h"

namespace ashlar::shm {

namespace {

// "begin-end rwxp offset major:minor inode   path"
bool parse(const char* line, Mapping& mapping) {
  char rights[5];
  std::uint32_t major;
  std::uint32_t minor;
  int path = 0;
  if (std::sscanf(
          line, "%" SCNxPTR "-%" SCNxPTR " %4s %" SCNx64 " %" SCNx32 ":%" SCNx32 " %" SCNu64 " %n",
          &mapping.begin, &mapping.end, rights, &mapping.offset, &major, &minor, &mapping.inode,
          &path) != 7) {
    return false;
  }
  mapping.device = std::uint64_t{major} << 32 | minor;
  mapping.writable = rights[1] == 'w';
  mapping.shared = rights[3] == 's';
  const Bytes length = std::strcspn(line + path, "\n");
  const Bytes kept = length < sizeof mapping.path ? length : 0;
  std::memcpy(mapping.path, line + path, kept);
  mapping.path[kept] = '\0';
  return true;
}

// Whether the file would be mapped as that one: a name may have been given to another since.
bool is_file_of(const Mapping& mapping, int fd) {
  void* const page = ::mmap(nullptr, kPageBytes, PROT_READ, MAP_SHARED, fd, 0);
  if (page == MAP_FAILED) return false;
  Mapping mapped;
  const bool same = find_mapping(page, mapped) && mapped.is_same_file(mapping);
  ::munmap(page, kPageBytes);
  return same;
}

}  // namespace

bool find_mapping(const void* p, Mapping& mapping) {
  std::FILE* const maps = std::fopen("/proc/self/maps", "re");
  if (maps == nullptr) return false;
  const auto address = reinterpret_cast<std::uintptr_t>(p);
  char line[PATH_MAX + 128];
  bool found = false;
  while (!found && std::fgets(line, sizeof line, maps) != nullptr) {
    found = parse(line, mapping) && address >= mapping.begin && address < mapping.end;
  }
  std::fclose(maps);
  return found;
}

int open_file_of(const Mapping& mapping) {
  // The link leads to the very file, also when its name is gone; but not everybody may follow it.
  char link[64];
  std::snprintf(link, sizeof link, "/proc/self/map_files/%" PRIxPTR "-%" PRIxPTR, mapping.begin,
                mapping.end);
  const char* const paths[] = {link, mapping.path};
  for (const char* const path : paths) {
    const int fd = ::open(path, O_RDWR | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) continue;
    if (is_file_of(mapping, fd)) return fd;
    ::close(fd);
  }
  return -1;
}

}  // namespace ashlar::shm
