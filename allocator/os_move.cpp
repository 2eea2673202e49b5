// SPDX-License-Identifier: MIT
// Pages that change their addresses.
#include <cstring>

#include "bits.h"
#include "os_parts.h"

namespace ashlar::os {

namespace {

bool remap(void* from, void* to, Bytes length, int flags = 0) {
  return ::syscall(SYS_mremap, from, length, length, MREMAP_MAYMOVE | MREMAP_FIXED | flags, to) !=
         -1;
}

// Moves pages out of the way, where the kernel can move them as fast as from where they are. Null:
// they were left where they are.
std::byte* lift(void* pages, Bytes length) {
  const auto at = reinterpret_cast<std::uintptr_t>(pages);
  std::byte* const room = map(nullptr, length + kChunkBytes, PROT_NONE, 0);
  if (room == nullptr) return nullptr;
  const Bytes before = (at - reinterpret_cast<std::uintptr_t>(room)) % kChunkBytes;
  std::byte* const lifted = room + before;
  if (before != 0) ::syscall(SYS_munmap, room, before);
  if (before != kChunkBytes) ::syscall(SYS_munmap, lifted + length, kChunkBytes - before);
  if (remap(pages, lifted, length)) return lifted;
  ::syscall(SYS_munmap, lifted, length);
  return nullptr;
}

// The kernel may refuse after it has unmapped the target, and a kernel that moves several
// mappings at once (6.17) after it has moved some of them. So the target is unmapped first: what is
// mapped there afterwards was moved, and the rest is copied.
bool move(void* from, void* to, Bytes length) {
  auto* const source = static_cast<std::byte*>(from);
  auto* const target = static_cast<std::byte*>(to);
  if (::syscall(SYS_munmap, target, length) != 0) return false;
  if (remap(from, to, length, MREMAP_DONTUNMAP)) return true;
  const auto is_mapped = [](std::byte* page) {
    unsigned char present = 0;
    return ::syscall(SYS_mincore, page, kPageBytes, &present) == 0;
  };
  const auto map_target = [target](Bytes offset, Bytes bytes) {
    return map(target + offset, bytes, PROT_READ | PROT_WRITE, MAP_FIXED_NOREPLACE) ==
           target + offset;
  };
  if (map_target(0, length)) {  // nothing was moved
    std::memcpy(target, source, length);
    return true;
  }
  Bytes done = 0;
  for (; done < length; done += kPageBytes) {
    if (is_mapped(target + done)) continue;
    if (!map_target(done, kPageBytes)) break;
    std::memcpy(target + done, source + done, kPageBytes);
  }
  if (done == length) return true;
  for (done = 0; done < length; done += kPageBytes) {
    if (is_mapped(target + done)) std::memcpy(source + done, target + done, kPageBytes);
  }
  return false;
}

}  // namespace

Move move_pages(void* from, void* to, Bytes length, bool exchange) {
  KeepErrno keep;
  std::byte* const lifted = exchange ? lift(to, length) : nullptr;
  const bool moved = move(from, to, length);
  if (moved && lifted != nullptr && remap(lifted, from, length)) return Move::exchanged;
  if (lifted != nullptr) ::syscall(SYS_munmap, lifted, length);
  if (!moved) return Move::failed;
  // Where pages were copied, the source still has them.
  if (!renew_mapping(from, length) && !purge(from, length)) std::memset(from, 0, length);
  return Move::done;
}

bool renew_mapping(void* address, Bytes length) {
  KeepErrno keep;
  if (map(address, length, PROT_READ | PROT_WRITE, MAP_FIXED) == nullptr) return false;
  name_mapping(address, length);
  return true;
}

}  // namespace ashlar::os
