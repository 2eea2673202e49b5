// SPDX-License-Identifier: MIT
#include "pool_handles.h"

#include <cerrno>
#include <new>

#include "check.h"
#include "objects.h"

namespace ashlar {

namespace {

constexpr std::uint64_t kChange = std::uint64_t{1} << 32;  // of the list of unused entries

// As with a seqlock: whoever locks the object meanwhile may write to it, and then nobody will use
// what is copied here. So the words are read one by one, each as it is.
__attribute__((no_sanitize("thread"))) void copy(void* to, const void* from, Bytes bytes) {
  auto* const target = static_cast<std::uint64_t*>(to);
  const auto* const source = static_cast<const volatile std::uint64_t*>(from);
  for (Bytes i = 0; i < bytes / sizeof *target; i++) target[i] = source[i];
}

}  // namespace

// --- its life -----------------------------------------------------------------------------------

PoolHandles& PoolHandles::of(ashlar_pool* handle, const char* caller) {
  const MovablePool& pool = MovablePool::of(handle, caller);
  if (pool.names() != names) refuse(caller, handle, " has no handles");
  return *static_cast<PoolHandles*>(pool.context());
}

MovablePool* PoolHandles::create() {
  void* const place = allocate(sizeof(PoolHandles));
  if (place == nullptr) return nullptr;
  auto* const handles = new (place) PoolHandles;
  handles->pool_ = MovablePool::create(relocate, handles, names);
  if (handles->pool_ == nullptr) give_slot(handles, "ashlar_pool_create");
  return handles->pool_;
}

void PoolHandles::destroy() {
  pool_->destroy();
  for (std::atomic<Entry*>& segment : segments_) {
    if (segment.load() != nullptr) give_slot(segment.load(), "ashlar_pool_destroy");
  }
  give_slot(this, "ashlar_pool_destroy");
}

// --- objects ------------------------------------------------------------------------------------

std::uint64_t PoolHandles::take(Bytes bytes) {
  const std::uint32_t index = take_index();
  if (index == kNone) return 0;
  void* const object = pool_->take(bytes, index);
  if (object == nullptr) {
    give_index(index);
    return 0;
  }
  Entry& entry = *find(index);
  const std::uint32_t generation = entry.word.load().generation();
  entry.word.store(EntryWord(EntryWord::kLive, generation, position(object)));
  return Handle{index, generation}.word();
}

bool PoolHandles::give(Handle handle) {
  Entry* const entry = find(handle.index);
  if (entry == nullptr) return false;
  EntryWord word = entry->word.load();
  do {
    if (is_stale(word, handle)) return false;
  } while (!entry->word.compare_exchange_weak(word, word.with(EntryWord::kDropped)));
  reclaim(*entry, handle.index);
  return true;
}

void* PoolHandles::lock(Handle handle) {
  Entry* const entry = find(handle.index);
  if (entry == nullptr) return nullptr;
  entry->locks++;  // before the entry is read; see relocate()
  EntryWord word = entry->word.load();
  for (;;) {
    if (is_stale(word, handle)) [[unlikely]] {
      end_lock(*entry, handle.index);
      return nullptr;
    }
    const bool settled = word.state() == EntryWord::kLive ||
                         entry->word.compare_exchange_strong(word, word.with(EntryWord::kLive));
    if (settled) [[likely]]
      return arena.data() + word.data_offset();
  }
}

bool PoolHandles::unlock(Handle handle) {
  Entry* const entry = find(handle.index);
  if (entry == nullptr || entry->locks.load() == 0 ||
      entry->word.load().generation() != handle.generation) {
    return false;
  }
  end_lock(*entry, handle.index);
  return true;
}

Bytes PoolHandles::usable_bytes(Handle handle) {
  const void* const object = lock(handle);
  if (object == nullptr) return 0;
  const Bytes bytes = pool_->usable_bytes(object, "ashlar_pool_handle_size");
  end_lock(*find(handle.index), handle.index);
  return bytes;
}

// The count falls before the entry is read, and who drops an entry reads the count afterwards: one
// of them sees that the object can go.
void PoolHandles::end_lock(Entry& entry, std::uint32_t index) {
  if (--entry.locks == 0 && entry.word.load().state() == EntryWord::kDropped) {
    reclaim(entry, index);
  }
}

// Gives a dropped object back, unless somebody has it locked; of two who try, one does.
void PoolHandles::reclaim(Entry& entry, std::uint32_t index) {
  EntryWord word = entry.word.load();
  if (word.state() != EntryWord::kDropped || entry.locks.load() != 0) return;
  const EntryWord next(EntryWord::kFree, word.generation() + 1, 0);
  if (!entry.word.compare_exchange_strong(word, next)) return;
  pool_->give(arena.data() + word.data_offset(), "ashlar_pool_handle_free");
  if (next.is_reusable()) give_index(index);
}

// --- moves --------------------------------------------------------------------------------------

Bytes PoolHandles::position(const void* object) {
  return static_cast<Bytes>(static_cast<const std::byte*>(object) - arena.data());
}

ashlar_verdict PoolHandles::relocate(void* handles, void* from, void* to, std::size_t bytes,
                                     std::uint64_t tag) {
  Entry& entry = *static_cast<PoolHandles*>(handles)->find(static_cast<std::uint32_t>(tag));
  EntryWord word = entry.word.load();
  // Otherwise it was freed, or its handle is not made yet. One that is moving was left so by a pass
  // that this process, a child of fork, has no thread of.
  if (!word.is_usable() || !word.names(position(from))) return ASHLAR_SKIP;
  EntryWord moving = word.with(EntryWord::kMoving);
  if (!entry.word.compare_exchange_strong(word, moving)) return ASHLAR_SKIP;
  EntryWord next = moving.with(EntryWord::kLive);
  const bool locked = entry.locks.load() != 0;  // after the exchange; see lock()
  if (!locked) {
    copy(to, from, bytes);
    next = EntryWord(EntryWord::kLive, moving.generation(), position(to));
  }
  const bool undisturbed = entry.word.compare_exchange_strong(moving, next);
  return undisturbed && !locked ? ASHLAR_COPIED : ASHLAR_SKIP;
}

bool PoolHandles::names(void* handles, std::uint64_t tag, const void* object) {
  const Entry* const entry =
      static_cast<PoolHandles*>(handles)->find(static_cast<std::uint32_t>(tag));
  return entry != nullptr && entry->word.load().names(position(object));
}

// --- the table ----------------------------------------------------------------------------------

// Null: no such entry was ever made. (One that was not used yet is zero, and so free.)
PoolHandles::Entry* PoolHandles::find(std::uint32_t index) const {
  const std::uint32_t s = segment_of(index);
  if (s >= kSegments) return nullptr;
  Entry* const segment = segments_[s].load(std::memory_order_acquire);  // pairs with: add_index
  const std::uint32_t first = kFirstEntries * ((1u << s) - 1);
  return segment == nullptr ? nullptr : segment + (index - first);
}

// kNone and errno: there is no memory for more.
std::uint32_t PoolHandles::take_index() {
  std::uint64_t head = unused_.load();
  while (static_cast<std::uint32_t>(head) != 0) {
    const std::uint32_t index = static_cast<std::uint32_t>(head) - 1;
    const std::uint64_t rest = find(index)->next.load();
    const std::uint64_t changes = head - static_cast<std::uint32_t>(head) + kChange;
    if (unused_.compare_exchange_weak(head, changes | rest)) return index;
  }
  return add_index();
}

std::uint32_t PoolHandles::add_index() {
  std::uint32_t index = end_.load();
  for (;;) {
    const std::uint32_t s = segment_of(index);
    if (s >= kSegments) break;
    if (segments_[s].load() == nullptr) {
      void* const block = allocate_zeroed(kFirstEntries << s, sizeof(Entry));
      if (block == nullptr) break;
      Entry* none = nullptr;
      // release: the entries are zero; pairs with: find
      if (!segments_[s].compare_exchange_strong(none, static_cast<Entry*>(block))) {
        give_slot(block, "ashlar_pool_handle_alloc");
      }
    }
    if (end_.compare_exchange_weak(index, index + 1)) return index;
  }
  errno = ENOMEM;
  return kNone;
}

void PoolHandles::give_index(std::uint32_t index) {
  Entry& entry = *find(index);
  std::uint64_t head = unused_.load();
  std::uint64_t next = 0;
  do {
    entry.next.store(static_cast<std::uint32_t>(head));
    next = (head - static_cast<std::uint32_t>(head) + kChange) | (index + 1);
  } while (!unused_.compare_exchange_weak(head, next));
}

}  // namespace ashlar
