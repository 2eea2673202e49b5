// SPDX-License-Identifier: MIT
// L6 · shm: the doors of <ashlar/shm.h>, but for those to what moves.
#include <cstring>
#include <dirent.h>
#include <new>
#include <sys/mman.h>

#include "check_arena.h"
#include "doors.h"
#include "embedded.h"
#include "recovery.h"
#include "roots.h"
#include "shortage.h"
#include "stats_arena.h"
#include "views.h"

namespace ashlar::shm {
namespace {

constexpr unsigned kAllFlags =
    ASHLAR_SHM_SCOPED | ASHLAR_SHM_READ_ONLY | ASHLAR_SHM_FIXED_SIZE | ASHLAR_SHM_HUGE_PAGES;

int attach(ashlar_shm& arena, unsigned flags) {
  const Geometry& g = arena.segment.geometry();
  arena.data = arena.segment.base() + g.data;
  arena.unit_entries = &arena.segment.at<std::atomic<std::uint64_t>>(g.table);
  arena.pages.attach(arena.segment);
  if ((flags & ASHLAR_SHM_HUGE_PAGES) != 0) {
    ::madvise(arena.data, g.end - g.data, MADV_HUGEPAGE);
  }
  return arena.processes.attach(arena.segment, (flags & ASHLAR_SHM_SCOPED) != 0);
}

// A handle on what open_segment(segment) → errno value makes or opens.
template <class OpenSegment>
ashlar_shm* open_arena(unsigned flags, OpenSegment&& open_segment) {
  const unsigned exclusive = ASHLAR_SHM_SCOPED | ASHLAR_SHM_READ_ONLY;
  if ((flags & ~kAllFlags) != 0 || (flags & exclusive) == exclusive) {
    errno = EINVAL;
    return nullptr;
  }
  void* const memory = map_private(sizeof(ashlar_shm));
  if (memory == nullptr) {
    errno = ENOMEM;
    return nullptr;
  }
  auto* const arena = new (memory) ashlar_shm;
  const bool registered = register_handle(*arena);
  int error = registered ? open_segment(arena->segment) : EMFILE;
  if (error == 0) {
    error = attach(*arena, flags);
    if (error == 0) {
      publish_handle(*arena);
      return arena;
    }
    arena->segment.close();
  }
  if (registered) unregister_handle(arena->number);
  unmap(memory, sizeof(ashlar_shm));
  errno = error;
  return nullptr;
}

ashlar_shm* create(Segment::Kind kind, const char* where, Bytes max_bytes, unsigned flags) {
  if ((flags & ASHLAR_SHM_READ_ONLY) != 0) {
    errno = EINVAL;
    return nullptr;
  }
  return open_arena(flags, [&](Segment& segment) {
    return segment.create(kind, where, max_bytes, (flags & ASHLAR_SHM_FIXED_SIZE) != 0);
  });
}

ashlar_shm* open(Segment::Kind kind, const char* where, unsigned flags) {
  return open_arena(flags, [&](Segment& segment) {
    return segment.open(kind, where, (flags & ASHLAR_SHM_READ_ONLY) != 0);
  });
}

ashlar_shm* open_at(int fd, Offset origin, Bytes new_bytes) {
  return open_arena(0, [&](Segment& segment) {
    return new_bytes != 0 ? segment.create_at(fd, origin, new_bytes) : segment.open_at(fd, origin);
  });
}

}  // namespace
}  // namespace ashlar::shm

using namespace ashlar;

// --- arenas -------------------------------------------------------------------------------------

ASHLAR_PUBLIC ashlar_shm* ashlar_shm_create(const char* name, size_t max_bytes, unsigned flags) {
  return shm::create(shm::Segment::Kind::named, name, max_bytes, flags);
}
ASHLAR_PUBLIC ashlar_shm* ashlar_shm_create_anonymous(size_t max_bytes, unsigned flags) {
  return shm::create(shm::Segment::Kind::anonymous, nullptr, max_bytes, flags);
}
ASHLAR_PUBLIC ashlar_shm* ashlar_shm_create_file(const char* path, size_t max_bytes,
                                                 unsigned flags) {
  return shm::create(shm::Segment::Kind::file, path, max_bytes, flags);
}
ASHLAR_PUBLIC ashlar_shm* ashlar_shm_open(const char* name, unsigned flags) {
  return shm::open(shm::Segment::Kind::named, name, flags);
}
ASHLAR_PUBLIC ashlar_shm* ashlar_shm_open_file(const char* path, unsigned flags) {
  return shm::open(shm::Segment::Kind::file, path, flags);
}
ASHLAR_PUBLIC ashlar_shm* ashlar_shm_open_fd(int fd, unsigned flags) {
  return shm::open_arena(flags, [&](shm::Segment& segment) {
    return segment.open_fd(fd, (flags & ASHLAR_SHM_READ_ONLY) != 0);
  });
}

ASHLAR_PUBLIC int ashlar_shm_fd(ashlar_shm* arena) {
  const int fd = arena->segment.fd();
  if (fd < 0) errno = EBADF;
  return fd;
}

ASHLAR_PUBLIC void ashlar_shm_close(ashlar_shm* arena) {
  if (arena == nullptr) return;
  shm::leave_arena(*arena);
  shm::unregister_handle(arena->number);
  arena->plan.close();
  arena->victims.close();
  arena->processes.detach();
  arena->segment.close();
  shm::unmap(arena, sizeof *arena);
}

ASHLAR_PUBLIC int ashlar_shm_unlink(const char* name) {
  return shm::result(shm::Segment::unlink(name));
}

ASHLAR_PUBLIC int ashlar_shm_list(int (*visit)(const char* name, void* context), void* context) {
  DIR* const directory = ::opendir("/dev/shm");
  if (directory == nullptr) return -1;
  int answer = 0;
  while (const dirent* entry = answer == 0 ? ::readdir(directory) : nullptr) {
    shm::Segment segment;
    if (segment.open(shm::Segment::Kind::named, entry->d_name, true) != 0) continue;
    segment.close();
    answer = visit(entry->d_name, context);
  }
  ::closedir(directory);
  return answer;
}

static_assert(shm::Geometry(1, false).end <= ASHLAR_SHM_LEAST_EMBEDDED);
ASHLAR_PUBLIC ashlar_shm* ashlar_shm_embed(void* memory, size_t bytes) {
  if (bytes < ASHLAR_SHM_LEAST_EMBEDDED) {
    errno = EINVAL;
    return nullptr;
  }
  return shm::attach_embedded(memory, bytes, shm::open_at);
}
ASHLAR_PUBLIC ashlar_shm* ashlar_shm_embedded(const void* memory) {
  ashlar_shm* const arena = shm::find_embedded(memory);
  return arena != nullptr ? arena : shm::attach_embedded(memory, 0, shm::open_at);
}
ASHLAR_PUBLIC void ashlar_shm_unembed(const void* memory) { shm::detach_embedded(memory); }

// --- blocks -------------------------------------------------------------------------------------

ASHLAR_PUBLIC void* ashlar_shm_malloc(ashlar_shm* arena, size_t bytes) {
  if (bytes > kMaxSlotBytes) [[unlikely]]
    return shm::take_large(*arena, bytes, kPageBytes);
  return shm::take(*arena, shm::place_for(bytes));
}

ASHLAR_PUBLIC void* ashlar_shm_memalign(ashlar_shm* arena, size_t alignment, size_t bytes) {
  if (!is_power_of_two(alignment) || alignment > kChunkBytes) {
    errno = EINVAL;
    return nullptr;
  }
  if (alignment <= kPageBytes) {
    const ClassIndex c = class_for_aligned(bytes, alignment);
    if (c.v < kClassCount) return shm::take(*arena, shm::place_of(c));
  }
  // Nothing that spans chunks begins elsewhere than with one, so it has every alignment.
  return shm::take_large(*arena, bytes == 0 ? 1 : bytes, alignment);
}

ASHLAR_PUBLIC void ashlar_shm_free(ashlar_shm* arena, void* p) { shm::give(*arena, p); }

ASHLAR_PUBLIC size_t ashlar_shm_usable_size(ashlar_shm* arena, const void* p) {
  return shm::bytes_at(*arena, p);
}

ASHLAR_PUBLIC void* ashlar_shm_realloc(ashlar_shm* arena, void* p, size_t bytes) {
  if (p == nullptr) return ashlar_shm_malloc(arena, bytes);
  const Bytes old_bytes = shm::bytes_at(*arena, p);
  if (old_bytes == 0) {
    errno = EINVAL;
    return nullptr;
  }
  if (bytes <= old_bytes && bytes >= old_bytes / 2) return p;
  const bool both_large = old_bytes > kMaxSlotBytes && bytes > kMaxSlotBytes;
  if (both_large && shm::resize_large(*arena, p, bytes)) return p;
  void* const moved = ashlar_shm_malloc(arena, bytes);
  if (moved == nullptr) return nullptr;
  std::memcpy(moved, p, bytes < old_bytes ? bytes : old_bytes);
  ashlar_shm_free(arena, p);
  return moved;
}

ASHLAR_PUBLIC ashlar_off ashlar_shm_offset(ashlar_shm* arena, const void* p) {
  return arena->offset(p);
}
ASHLAR_PUBLIC void* ashlar_shm_pointer(ashlar_shm* arena, ashlar_off offset) {
  return arena->pointer(offset);
}

ASHLAR_PUBLIC void* ashlar_shm_base(ashlar_shm* arena) { return arena->segment.base(); }
ASHLAR_PUBLIC ashlar_shm* ashlar_shm_find(const void* p) { return shm::find_handle(p); }

ASHLAR_PUBLIC ashlar_off ashlar_shm_malloc_into(ashlar_shm* arena, size_t bytes, ashlar_off* slot) {
  if (shm::refused(arena) || shm::no_slot(arena, slot)) return 0;
  const auto publish = [](std::atomic<shm::Offset>& to, shm::Offset block, void*) {
    to.store(block);
    return true;
  };
  const shm::Offset block = shm::take_into(
      *arena, bytes, *reinterpret_cast<std::atomic<shm::Offset>*>(slot), publish, nullptr);
  shm::look_if_grown(shm::view_of(*arena), block == 0);
  return block;
}

ASHLAR_PUBLIC ashlar_off ashlar_shm_exchange(ashlar_shm* arena, ashlar_off* slot,
                                             ashlar_off desired) {
  if (shm::refused(arena) || shm::no_slot(arena, slot)) return 0;
  return shm::exchange(*arena, *reinterpret_cast<std::atomic<shm::Offset>*>(slot), desired);
}

// --- names --------------------------------------------------------------------------------------

ASHLAR_PUBLIC int ashlar_shm_root_set(ashlar_shm* arena, const char* key, ashlar_off value) {
  if (shm::refused(arena)) return -1;
  return shm::result(shm::set_root(*arena, key, value));
}
ASHLAR_PUBLIC ashlar_off ashlar_shm_root_get(ashlar_shm* arena, const char* key) {
  return shm::get_root(*arena, key);
}
ASHLAR_PUBLIC int ashlar_shm_root_replace(ashlar_shm* arena, const char* key, ashlar_off expected,
                                          ashlar_off desired) {
  if (shm::refused(arena)) return -1;
  return shm::result(shm::replace_root(*arena, key, expected, desired));
}
ASHLAR_PUBLIC int ashlar_shm_roots(ashlar_shm* arena,
                                   int (*visit)(const char* key, ashlar_off, void* context),
                                   void* context) {
  return shm::for_each_root(*arena, visit, context);
}

// --- when somebody dies, and who holds what -----------------------------------------------------

ASHLAR_PUBLIC int ashlar_shm_recover(ashlar_shm* arena) {
  if (const int error = shm::join_arena(*arena); error != 0) return shm::result(error);
  return static_cast<int>(shm::recover_dead(*arena));
}

ASHLAR_PUBLIC int ashlar_shm_check(ashlar_shm* arena, char* why, size_t why_len) {
  Text text;
  const bool sound = shm::check_arena(*arena, text);
  if (why != nullptr && why_len != 0) {
    const Bytes length = text.view().size() < why_len ? text.view().size() : why_len - 1;
    std::memcpy(why, text.view().data(), length);
    why[length] = '\0';
  }
  return shm::result(sound ? 0 : EUCLEAN);
}

ASHLAR_PUBLIC int ashlar_shm_set_quota(ashlar_shm* arena, size_t bytes) {
  if (shm::refused(arena)) return -1;
  arena->state().quota.store(bytes);
  return 0;
}

ASHLAR_PUBLIC int ashlar_shm_stat(ashlar_shm* arena, ashlar_shm_stats* stats) {
  shm::collect_stats(*arena, *stats);
  return 0;
}

ASHLAR_PUBLIC int ashlar_shm_processes(ashlar_shm* arena,
                                       int (*visit)(const ashlar_shm_process*, void* context),
                                       void* context) {
  return shm::for_each_process(*arena, visit, context);
}
