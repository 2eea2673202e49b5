// SPDX-License-Identifier: MIT
// Packer: what placement alone costs. No allocator, but addresses without memory behind them.
//
// What:    two ways to place objects that know nothing of when these will be freed, and pay for
//          nothing: no magazines, no metadata, and a page without an object goes back at that
//          moment. What is left are the pages that have an object. What an allocator holds beyond
//          them is its own doing, and what it holds less is a better way to place.
//
//            FirstFit   the lowest gap that is long enough, whatever lies around it
//            BySize     a page has objects of one size; the lowest page with room
//
//          Where objects survive at random, those of one size belong together: fewer large ones lie
//          on a page, and none across two. Where sizes shift, gaps must serve other sizes.
// Not:     bounds. Nothing is moved, neither objects nor pages.
// Threads: any.
#pragma once

#include <cstddef>
#include <memory>
#include <string_view>

namespace ashlar::bench::frag {

class Packer {
 public:
  // "first_fit", "by_size"; null: there is no such packer.
  static std::unique_ptr<Packer> make(std::string_view name);
  virtual ~Packer() = default;

  // An address, not to be touched.
  virtual unsigned char* take(std::size_t bytes) = 0;
  virtual void give(unsigned char* object, std::size_t bytes) = 0;
  // Bytes of all pages that an object lies on.
  virtual std::size_t held() const = 0;

  static constexpr std::size_t kGrain = 16;
  static constexpr std::size_t kPage = 4096;
  static constexpr std::size_t usable(std::size_t bytes) {
    return bytes == 0 ? kGrain : (bytes + kGrain - 1) / kGrain * kGrain;
  }
};

}  // namespace ashlar::bench::frag
