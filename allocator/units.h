// SPDX-License-Identifier: MIT
// L0 · units: the sizes everything is built from, and index types that cannot be mixed up.
//
//   page   4 KiB   what the OS maps
//   unit  64 KiB   what the unit table has an entry for
//   chunk  2 MiB   one huge page, one 512-bit row of the buddy
#pragma once

#include <compare>
#include <cstddef>
#include <cstdint>

namespace ashlar {

using Bytes = std::size_t;

inline constexpr Bytes kKiB = 1024;
inline constexpr Bytes kMiB = 1024 * kKiB;
inline constexpr Bytes kGiB = 1024 * kMiB;

inline constexpr Bytes kPageBytes = 4 * kKiB;
inline constexpr Bytes kUnitBytes = 64 * kKiB;
inline constexpr Bytes kChunkBytes = 2 * kMiB;
inline constexpr Bytes kCacheLineBytes = 64;

inline constexpr std::uint32_t kPagesPerUnit = kUnitBytes / kPageBytes;
inline constexpr std::uint32_t kPagesPerChunk = kChunkBytes / kPageBytes;
inline constexpr std::uint32_t kUnitsPerChunk = kChunkBytes / kUnitBytes;

// An index into one particular array. Arithmetic is done on `v`, in the open.
template <class Tag>
struct Index {
  std::uint32_t v = 0;
  friend constexpr auto operator<=>(Index, Index) = default;
};

using PageIndex = Index<struct PageTag>;    // pages of an arena, from its first data page
using UnitIndex = Index<struct UnitTag>;    // units of an arena, from its first data page
using ChunkIndex = Index<struct ChunkTag>;  // chunks of an arena, from its first data page
using ClassIndex = Index<struct ClassTag>;  // size classes, ascending
using PageCount = Index<struct PageCountTag>;

// Links are indices; this one means "none".
inline constexpr std::uint32_t kNone = 0xffff'ffff;

constexpr ChunkIndex chunk_of(PageIndex page) { return {page.v / kPagesPerChunk}; }
constexpr ChunkIndex chunk_of(UnitIndex unit) { return {unit.v / kUnitsPerChunk}; }
constexpr UnitIndex unit_of(PageIndex page) { return {page.v / kPagesPerUnit}; }
constexpr PageIndex first_page(UnitIndex unit) { return {unit.v * kPagesPerUnit}; }
constexpr PageIndex first_page(ChunkIndex chunk) { return {chunk.v * kPagesPerChunk}; }

constexpr PageCount pages_for(Bytes bytes) {
  return {static_cast<std::uint32_t>((bytes + kPageBytes - 1) / kPageBytes)};
}
constexpr std::uint32_t chunks_for(PageCount pages) {
  return (pages.v + kPagesPerChunk - 1) / kPagesPerChunk;
}
constexpr Bytes bytes_of(PageCount pages) { return Bytes{pages.v} * kPageBytes; }

}  // namespace ashlar
