// SPDX-License-Identifier: MIT
// L1 · root: where somebody outside the process finds the heap.
//
// What:    one object of constant layout under a symbol that a reader looks up in the program's
//          ELF files. It says which release this is, how its memory is laid out, and where the
//          arena's region begins. A tool may also leave a request in it.
// How:     a reader compares `magic`, `version` and `layout` before it believes anything else. A
//          request is a number that the tool counts up; the heap answers by copying it when it
//          has done what was asked. Nobody waits for anybody, and no signal is sent.
// Threads: written by the heap; read from other processes at any time.
// Not here: its definition, which is where readers keep what they know (frag_metrics/root.cpp).
#pragma once

#include <atomic>
#include <cstdint>

namespace ashlar {

class Sampler;
struct Options;

struct Root {
  static constexpr std::uint64_t kMagic = 0x746f'6f72'6c68'7361;  // "ashlroot", read backwards
  static constexpr std::uint32_t kVersion = 2;  // of this structure and of what fields mean

  std::uint64_t magic = kMagic;       // const
  std::uint32_t version = kVersion;   // const
  std::uint32_t bytes;                // const: of this structure
  std::uint64_t layout;               // const: a hash of sizes and offsets of what readers read
  char release[16];                   // const: "0.1.0"
  const Options* options;             // const
  const Sampler* sampler;             // const
  std::atomic<const void*> region{};  // atomic: who creates the arena → readers; null before

  std::atomic<std::uint32_t> trim_wanted{};  // atomic: a tool → heap; counts requests
  std::atomic<std::uint32_t> trim_done{};    // atomic: heap → a tool; the last one done
};

// The C name is the symbol to look for.
extern "C" [[gnu::visibility("default")]] Root ashlar_root;

}  // namespace ashlar
