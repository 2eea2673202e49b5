// SPDX-License-Identifier: MIT
//
// A memory algorithm for Boost.Interprocess (1.74): its managed segments, with Ashlar's allocator
// in them. Link libashlar_shm.
//
//   namespace bi = boost::interprocess;
//   using Segment = bi::basic_managed_shared_memory<char, ashlar::shm_algorithm<>, bi::iset_index>;
//
// The same for basic_managed_mapped_file and, on memory of a file that is mapped shared and
// writable, basic_managed_external_buffer. Containers, allocators and names stay Boost's.
//
// Deaths   who is killed while taking or giving memory holds up nobody, and is recovered.
//          Boost's index of names has a mutex of Boost's: who is killed inside construct(),
//          find() or destroy() leaves it locked.
// Size     a segment has at least 4 MiB and a page. grow() adds an arena in what was added to its
// file,
//          4 MiB and a page at least, seven times at most; shrink_to_fit() takes those away that
//          are empty, the last ones first. The first one keeps its size, as its file must have it;
//          memory that was freed goes back to the system all the same. As with Boost's own, nobody
//          may have the segment mapped meanwhile. No block is larger than the arena that it lies
//          in. zero_free_memory() throws: what is free in slabs of other threads is theirs to take
//          at any moment, with no lock that could stop them.
// Limits   each process maps the segment twice. Alignments up to a page; more would not hold in
//          another process. If a segment cannot have an arena (no such memory, /dev/shm full, the
//          name is gone before a process first takes memory), its memory counts as full: allocate()
//          is null, the throwing calls throw bad_alloc, check_sanity() is false.
//          Not on segments that are opened copy-on-write or read-only, except to read. A process
//          must not map a byte copy of a file where it had mapped the original.
#ifndef ASHLAR_BOOST_INTERPROCESS_HPP
#define ASHLAR_BOOST_INTERPROCESS_HPP

#include <ashlar/shm.h>

#include <boost/interprocess/containers/allocation_type.hpp>
#include <boost/interprocess/exceptions.hpp>
#include <boost/interprocess/mem_algo/detail/mem_algo_common.hpp>
#include <boost/interprocess/offset_ptr.hpp>
#include <boost/interprocess/sync/mutex_family.hpp>

#include <cstddef>
#include <cstdint>

namespace ashlar {

// Lies at the beginning of a segment that Boost mapped, at another address in each process, which
// it reaches without any constructor. So it holds distances only; the handle is found by address.
template <class MutexFamily = boost::interprocess::mutex_family,
          class VoidPointer = boost::interprocess::offset_ptr<void>>
class shm_algorithm {
 public:
  using mutex_family = MutexFamily;
  using void_pointer = VoidPointer;
  using size_type = std::size_t;
  using difference_type = std::ptrdiff_t;
  using multiallocation_chain =
      boost::interprocess::ipcdetail::basic_multiallocation_chain<VoidPointer>;
  using allocation_type = boost::interprocess::allocation_type;

  static constexpr size_type Alignment = 16;
  static constexpr size_type PayloadPerAllocation = 0;

  // In the first of `size` bytes. The `reserved` ones behind this object are the caller's.
  shm_algorithm(size_type size, size_type reserved) : size_(size) {
    add_arena(sizeof(shm_algorithm) + reserved, size);
  }
  shm_algorithm(const shm_algorithm&) = delete;
  shm_algorithm& operator=(const shm_algorithm&) = delete;

  static size_type get_min_size(size_type reserved) {
    return sizeof(shm_algorithm) + reserved + kPageBytes + ASHLAR_SHM_LEAST_EMBEDDED;
  }

  // --- blocks; null: there is no memory --------------------------------------------------------

  void* allocate(size_type bytes) { return allocate_aligned(bytes, Alignment); }
  void* allocate_aligned(size_type bytes, size_type alignment) {
    if (alignment > kPageBytes) return nullptr;
    for (size_type a = 0; a < arenas_; a++) {
      ashlar_shm* const in = arena(a);
      if (in == nullptr) continue;
      void* const block = alignment <= Alignment ? ashlar_shm_malloc(in, bytes)
                                                 : ashlar_shm_memalign(in, alignment, bytes);
      if (block != nullptr) return arena_address(a) + ashlar_shm_offset(in, block);
    }
    return nullptr;
  }
  void deallocate(void* block) {
    if (block == nullptr) return;
    const size_type a = arena_of(block);
    if (ashlar_shm* const in = arena(a))
      ashlar_shm_free(in, in_handle(in, block, arena_address(a)));
  }
  size_type size(const void* block) const {
    const size_type a = arena_of(block);
    ashlar_shm* const in = arena(a);
    return in == nullptr ? 0 : ashlar_shm_usable_size(in, in_handle(in, block, arena_address(a)));
  }

  // All of them are added to the chain, or none.
  void allocate_many(size_type bytes, size_type count, multiallocation_chain& chain) {
    add_blocks(count, chain, [bytes](size_type) { return bytes; });
  }
  void allocate_many(const size_type* counts, size_type count, size_type object_bytes,
                     multiallocation_chain& chain) {
    add_blocks(count, chain, [=](size_type i) { return product(counts[i], object_bytes); });
  }
  void deallocate_many(multiallocation_chain& chain) {
    while (!chain.empty()) deallocate(chain.pop_front());
  }

  // Blocks stay where they are and as long as they are: one is "expanded" into the rest of its
  // slot, and "shrunk" if that already is as short as `limit`.
  template <class T>
  T* allocation_command(allocation_type command, size_type limit, size_type& count, T*& reuse) {
    void* block = reuse;
    void* const result = raw_allocation_command(command, limit, count, block, sizeof(T));
    reuse = static_cast<T*>(block);
    return static_cast<T*>(result);
  }
  // `count`: of objects that are preferred; then of those that there is room for.
  void* raw_allocation_command(allocation_type command, size_type limit, size_type& count,
                               void*& reuse, size_type object_bytes = 1) {
    namespace bi = boost::interprocess;
    if (object_bytes == 0) return reuse = nullptr;
    const size_type preferred = count;
    const size_type present = reuse == nullptr ? 0 : size(reuse) / object_bytes;
    if ((command & (bi::shrink_in_place | bi::try_shrink_in_place)) != 0) {
      if (reuse == nullptr) return nullptr;
      count = present;
      return present <= limit ? reuse : nullptr;
    }
    if (limit <= preferred) {
      if ((command & bi::expand_fwd) != 0 && reuse != nullptr && present >= limit) {
        count = present;
        return reuse;
      }
      if ((command & bi::allocate_new) != 0) {
        for (const size_type wanted : {preferred, limit}) {
          if (void* const block = allocate(product(wanted, object_bytes))) {
            reuse = nullptr;
            count = size(block) / object_bytes;
            return block;
          }
        }
      }
    }
    return reuse = nullptr;
  }

  // --- the segment -----------------------------------------------------------------------------

  size_type get_size() const { return size_; }
  // Looks at all of its arenas.
  size_type get_free_memory() const {
    size_type bytes = 0;
    for (size_type a = 0; a < arenas_; a++) {
      const ashlar_shm_stats stats = statistics(a);
      bytes += stats.max_bytes - stats.allocated;
    }
    return bytes;
  }
  bool all_memory_deallocated() const {
    for (size_type a = 0; a < arenas_; a++) {
      if (!is_empty(a)) return false;
    }
    return true;
  }
  bool check_sanity() const {
    for (size_type a = 0; a < arenas_; a++) {
      ashlar_shm* const in = arena(a);
      if (in == nullptr || ashlar_shm_check(in, nullptr, 0) != 0) return false;
    }
    return arenas_ != 0;
  }

  // The segment has been made that much longer.
  void grow(size_type extra) {
    if (arenas_ == kMostArenas)
      refuse("ashlar::shm_algorithm: a segment grows seven times at most");
    if (!add_arena(size_, size_ + extra)) {
      refuse("ashlar::shm_algorithm: a segment grows by 4 MiB and a page at least");
    }
    size_ += extra;
  }
  // The segment will be cut off at get_size().
  void shrink_to_fit() {
    for (; arenas_ > 1; size_ = distance_[--arenas_]) {
      const size_type last = arenas_ - 1;
      ashlar_shm_unembed(arena_address(last));
      if (!is_empty(last) || is_in_use(last)) return;
    }
  }
  void zero_free_memory() { refuse("ashlar::shm_algorithm: free memory is not zeroed"); }

  // This process's handle on the first arena, for <ashlar/shm.h>; null: the segment has none, see
  // errno.
  ashlar_shm* arena() const { return arena(0); }

 private:
  static constexpr size_type kPageBytes = 4096;
  static constexpr size_type kMostArenas = 8;

  [[noreturn]] static void refuse(const char* why) {
    throw boost::interprocess::interprocess_exception(why);
  }
  // Too large for any arena, if it cannot be told.
  static size_type product(size_type a, size_type b) {
    size_type bytes = 0;
    return __builtin_mul_overflow(a, b, &bytes) ? static_cast<size_type>(-1) : bytes;
  }

  char* address() const { return reinterpret_cast<char*>(const_cast<shm_algorithm*>(this)); }
  char* arena_address(size_type a) const { return address() + distance_[a]; }
  ashlar_shm* arena(size_type a) const {
    return a < arenas_ ? ashlar_shm_embedded(arena_address(a)) : nullptr;
  }
  // The one that a block lies in.
  size_type arena_of(const void* block) const {
    const auto distance = static_cast<size_type>(static_cast<const char*>(block) - address());
    size_type a = 0;
    while (a + 1 < arenas_ && distance >= distance_[a + 1]) a++;
    return a;
  }
  // From the first page behind `begin`, to `end`. False: there is none.
  bool add_arena(size_type begin, size_type end) {
    const auto own = reinterpret_cast<std::uintptr_t>(this);
    const std::uintptr_t page = (own + begin + kPageBytes - 1) / kPageBytes * kPageBytes;
    const size_type distance = page - own;
    if (distance >= end || ashlar_shm_embed(address() + distance, end - distance) == nullptr) {
      return false;
    }
    distance_[arenas_++] = distance;
    return true;
  }
  static void* in_handle(ashlar_shm* in, const void* block, const char* arena_address) {
    return ashlar_shm_pointer(
        in, static_cast<ashlar_off>(static_cast<const char*>(block) - arena_address));
  }
  template <class BytesOf>
  void add_blocks(size_type count, multiallocation_chain& chain, BytesOf&& bytes_of) {
    multiallocation_chain added;
    for (size_type i = 0; i < count; i++) {
      void* const block = allocate(bytes_of(i));
      if (block == nullptr) return deallocate_many(added);
      added.push_back(block);
    }
    chain.splice_after(chain.last(), added);
  }
  ashlar_shm_stats statistics(size_type a) const {
    ashlar_shm_stats stats{};
    if (ashlar_shm* const in = arena(a)) ashlar_shm_stat(in, &stats);
    return stats;
  }
  bool is_empty(size_type a) const {
    const ashlar_shm_stats stats = statistics(a);
    return stats.small_blocks + stats.large_blocks == 0;
  }

  // Some living process has taken memory there, and may have a handle on it to the end of its days.
  bool is_in_use(size_type a) const {
    ashlar_shm* const in = arena(a);
    const auto is_alive = [](const ashlar_shm_process* process, void*) { return process->alive; };
    return in != nullptr && ashlar_shm_processes(in, is_alive, nullptr) != 0;
  }

  size_type size_;
  size_type arenas_ = 0;
  size_type distance_[kMostArenas] = {};  // from this object to each of its arenas
};

}  // namespace ashlar

#endif
