// SPDX-License-Identifier: MIT
#include "roots.h"

#include <cerrno>
#include <cstring>
#include <new>

namespace ashlar::shm {

namespace {

struct NewRoot {
  ashlar_shm* arena;
  const char* key;
  Bytes key_bytes;
  bool beaten;  // somebody else filled the place
};

bool publish_root(std::atomic<Offset>& place, Offset block, void* context) {
  auto& request = *static_cast<NewRoot*>(context);
  auto* const root = new (request.arena->pointer(block)) Root{};
  std::memcpy(root->key, request.key, request.key_bytes + 1);
  Offset empty = 0;
  request.beaten = !place.compare_exchange_strong(empty, block);
  return !request.beaten;
}

// The key's record; made if there is none and `make`. Null and error.
Root* find(ashlar_shm& arena, const char* key, bool make, int& error) {
  const Bytes key_bytes = key == nullptr ? 0 : ::strnlen(key, Root::kMostKeyBytes + 1);
  error = EINVAL;
  if (key_bytes == 0 || key_bytes > Root::kMostKeyBytes) return nullptr;
  const std::uint64_t hash = hash_bytes(reinterpret_cast<const unsigned char*>(key), key_bytes);
  NewRoot request{&arena, key, key_bytes, false};
  for (std::uint32_t i = 0; i < kRoots; i++) {
    std::atomic<Offset>& place = arena.root(static_cast<std::uint32_t>((hash + i) % kRoots));
    Offset offset = place.load();
    if (offset == 0 && make) {
      if (arena.processes.scoped()) {  // the record would be freed, and its place would remain
        error = EPERM;
        return nullptr;
      }
      offset = take_into(arena, offsetof(Root, key) + key_bytes + 1, place, publish_root, &request);
      if (offset == 0 && !request.beaten) {
        error = errno;
        return nullptr;
      }
      offset = place.load();
    }
    error = ENOENT;
    if (offset == 0) return nullptr;
    Root* const root = root_at(arena, offset);
    if (root != nullptr && std::strcmp(root->key, key) == 0) return root;
  }
  error = ENOMEM;
  return nullptr;
}

}  // namespace

Root* root_at(ashlar_shm& arena, Offset offset) {
  void* const p = arena.pointer(offset);
  const Bytes bytes = p == nullptr || offset % kMinAlignment != 0 ? 0 : bytes_at(arena, p);
  if (bytes <= offsetof(Root, key)) return nullptr;
  auto* const root = static_cast<Root*>(p);
  const Bytes room = bytes - offsetof(Root, key);
  return ::strnlen(root->key, room) < room ? root : nullptr;
}

int set_root(ashlar_shm& arena, const char* key, Offset value) {
  int error = 0;
  Root* const root = find(arena, key, true, error);
  if (root == nullptr) return error;
  root->value.store(value);
  return 0;
}

Root* find_root(ashlar_shm& arena, const char* key) {
  int error = 0;
  return find(arena, key, false, error);
}

Offset get_root(ashlar_shm& arena, const char* key) {
  const Root* const root = find_root(arena, key);
  return root == nullptr ? 0 : root->value.load();
}

int replace_root(ashlar_shm& arena, const char* key, Offset expected, Offset desired) {
  int error = 0;
  Root* const root = find(arena, key, true, error);
  if (root == nullptr) return error;
  return root->value.compare_exchange_strong(expected, desired) ? 0 : EEXIST;
}

int for_each_root(ashlar_shm& arena, int (*visit)(const char* key, Offset value, void* context),
                  void* context) {
  int answer = 0;
  for (std::uint32_t i = 0; i < kRoots && answer == 0; i++) {
    const Root* const root = root_at(arena, arena.root(i).load());
    const Offset value = root == nullptr ? 0 : root->value.load();
    if (value == 0) continue;
    char key[Root::kMostKeyBytes + 1] = "";  // a copy, which nobody else can change
    std::memcpy(key, root->key, ::strnlen(root->key, Root::kMostKeyBytes));
    answer = visit(key, value, context);
  }
  return answer;
}

}  // namespace ashlar::shm
