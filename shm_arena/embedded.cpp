// SPDX-License-Identifier: MIT
#include "embedded.h"

#include <cerrno>
#include <unistd.h>

#include "lanes.h"
#include "mappings.h"

namespace ashlar::shm {

namespace {

struct Entry {
  std::atomic<const void*> memory = nullptr;  // atomic: who attaches → all; null: hidden or unused
  ashlar_shm* arena = nullptr;                // const while `memory` is set
};

struct Registry {
  Lock lock;
  std::atomic<std::uint32_t> end = 0;  // atomic: who attaches → all; none was at or behind it
  Entry entries[kHandles];             // lock; read without
};
constinit Registry registry;

class Locked {
 public:
  Locked() { registry.lock.lock(); }
  ~Locked() { registry.lock.unlock(); }
};

bool is_mapped_at(const void* memory, const ashlar_shm& arena) {
  Mapping theirs;
  Mapping ours;
  const std::byte* const base = arena.segment.base();
  return find_mapping(memory, theirs) && find_mapping(base, ours) && theirs.is_same_file(ours) &&
         theirs.file_offset(memory) == ours.file_offset(base);
}

// Those whose memory is gone, and whatever was at `replaced`.
void close_stale(const void* replaced) {
  for (std::uint32_t n = 0; n < registry.end.load(); n++) {
    Entry& entry = registry.entries[n];
    const void* const memory = entry.memory.exchange(nullptr);
    if (memory == nullptr) continue;
    if (memory != replaced && is_mapped_at(memory, *entry.arena)) {
      entry.memory.store(memory);
    } else {
      ashlar_shm_close(entry.arena);
    }
  }
}

void enter(const void* memory, ashlar_shm* arena) {
  std::uint32_t n = 0;  // there are as many entries as handles
  while (registry.entries[n].memory.load() != nullptr) n++;
  registry.entries[n].arena = arena;
  raise_to(registry.end, n + 1);
  registry.entries[n].memory.store(memory);
}

}  // namespace

ashlar_shm* find_embedded(const void* memory) {
  const std::uint32_t end = memory == nullptr ? 0 : registry.end.load();
  for (std::uint32_t n = 0; n < end; n++) {
    const Entry& entry = registry.entries[n];
    if (entry.memory.load() != memory) continue;
    if (ashlar_shm* const arena = entry.arena; arena->segment.begins_at(memory)) return arena;
  }
  return nullptr;
}

ashlar_shm* attach_embedded(const void* memory, Bytes new_bytes, OpenAt open) {
  Locked locked;
  if (new_bytes == 0) {  // another thread may have been faster
    if (ashlar_shm* const arena = find_embedded(memory)) return arena;
  }
  close_stale(memory);
  Mapping mapping;
  if (reinterpret_cast<std::uintptr_t>(memory) % kPageBytes != 0 ||
      !find_mapping(memory, mapping) || !mapping.shared || !mapping.writable ||
      mapping.inode == 0 || mapping.file_offset(memory) == 0) {
    errno = EINVAL;
    return nullptr;
  }
  const int fd = open_file_of(mapping);
  if (fd < 0) {
    errno = ENOENT;
    return nullptr;
  }
  ashlar_shm* const arena = open(fd, mapping.file_offset(memory), new_bytes);
  const int error = errno;
  ::close(fd);
  errno = error;
  if (arena != nullptr) enter(memory, arena);
  return arena;
}

void detach_embedded(const void* memory) {
  Locked locked;
  close_stale(memory);
}

}  // namespace ashlar::shm
