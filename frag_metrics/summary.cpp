// SPDX-License-Identifier: MIT
#include "summary.h"

#include <cerrno>
#include <unistd.h>
#include <utility>

#include "ashlar/ashlar.h"
#include "options.h"
#include "program_heap.h"
#include "stats.h"

namespace ashlar {

namespace {

// Classes that hold less than this part of the gap are summed up in one line.
constexpr std::uint64_t kSmallestShare = 100;

constexpr std::size_t kBarCells = 20;

// Of the program's heaps, the largest so many have a line each.
constexpr std::size_t kMostHeaps = 10;

std::uint64_t permille(std::uint64_t part, std::uint64_t whole) {
  return whole == 0 ? 0 : part * 1000 / whole;
}

Text& percent_column(Text& line, std::uint64_t part, std::uint64_t whole, std::size_t width) {
  Text cell;
  cell.decimal((permille(part, whole) + 5) / 10).put(" %");
  return line.column(cell.view(), width);
}

Text& size_column(Text& line, Bytes bytes, std::size_t width) {
  Text cell;
  cell.size(bytes);
  return line.column(cell.view(), width);
}

Text& number_column(Text& line, std::uint64_t n, std::size_t width) {
  Text cell;
  cell.decimal(n);
  return line.column(cell.view(), width);
}

Bytes free_in_slabs(const ClassStats& c, std::uint32_t slot_bytes) {
  return (c.slots - c.used) * slot_bytes;
}

// One rung of the ladder from what is held to what is mapped.
void write_rung(const Output& out, std::string_view name, Bytes bytes, Bytes of,
                std::string_view what) {
  Text line;
  line.put("  ").put(name);
  for (std::size_t i = name.size(); i < 12; i++) line.put(' ');
  size_column(line, bytes, 10);
  percent_column(line, bytes, of, 8).put("   ").put(what).put('\n');
  out.put(line);
}

void write_class(const Output& out, std::uint32_t slot_bytes, const ClassStats& c,
                 Bytes largest_gap) {
  Text line;
  const Bytes wasted = free_in_slabs(c, slot_bytes);
  number_column(line, slot_bytes, 8);
  line.put(" B");
  number_column(line, c.slabs, 8);
  number_column(line, c.used, 11);
  percent_column(line, c.used, c.slots, 8);
  size_column(line, c.used * slot_bytes, 12);
  size_column(line, wasted, 12);
  line.put("  ");
  const std::uint64_t cells = (permille(wasted, largest_gap) * kBarCells + 999) / 1000;
  for (std::uint64_t i = 0; i < cells; i++) line.put('#');
  out.put(line.put('\n'));
}

// The largest of the heaps that the program made, and the sum of the others.
struct LargestHeaps {
  ProgramHeap::Account heap[kMostHeaps];  // the largest first
  std::size_t count = 0;
  std::uint64_t others = 0;
  ProgramHeap::Account rest;

  void add(ProgramHeap::Account one) {
    for (std::size_t i = 0; i < count; i++) {
      if (one.held.active > heap[i].held.active) std::swap(one, heap[i]);
    }
    if (count < kMostHeaps) {
      heap[count++] = one;
      return;
    }
    others++;
    rest.held.objects += one.held.objects;
    rest.held.allocated += one.held.allocated;
    rest.held.active += one.held.active;
    rest.resident += one.resident;
  }
};

void write_heap(const Output& out, Text& line, const ProgramHeap::Account& heap) {
  number_column(line, heap.held.objects, 11);
  size_column(line, heap.held.allocated, 12);
  size_column(line, heap.held.active, 12);
  size_column(line, heap.resident, 12);
  out.put(line.put(heap.has_own_pages ? "  on pages of its own, not in the sums above\n" : "\n"));
}

// Nothing when there are none.
void write_heaps(const Output& out) {
  LargestHeaps largest;
  const std::uint32_t left_out =
      program_heaps.for_each([&](const ProgramHeap::Account& heap) { largest.add(heap); });
  if (largest.count == 0 && left_out == 0) return;
  out.put(Text().put("      heap    objects   allocated      active    resident\n"));
  for (std::size_t i = 0; i < largest.count; i++) {
    Text line;
    number_column(line, largest.heap[i].number, 10);
    write_heap(out, line, largest.heap[i]);
  }
  if (largest.others != 0) {
    Text line;
    number_column(line, largest.others, 3);
    write_heap(out, line.put(" others"), largest.rest);
  }
  if (left_out != 0) {
    out.put(Text().put("  left out, for they are in use: ").decimal(left_out).put('\n'));
  }
  out.put(Text().put('\n'));
}

}  // namespace

void Output::put(const Text& text) const {
  if (write_ == nullptr) return text.write_to(fd_);
  char piece[sizeof(Text)];
  text.view().copy(piece, text.view().size());
  piece[text.view().size()] = '\0';
  write_(context_, piece);
}

void write_summary(const Output& out) {
  HeapStats s;
  collect_stats(s);

  out.put(Text()
              .put("\nashlar ")
              .put(ashlar_version())
              .put(": memory of ")
              .put(program_invocation_short_name)
              .put(" (process ")
              .decimal(static_cast<std::uint64_t>(::getpid()))
              .put(")\n\n"));
  write_rung(out, "allocated", s.allocated, s.mapped, "held by the program, rounded up to slots");
  write_rung(out, "magazines", s.magazines, s.mapped, "free slots that threads keep at hand");
  write_rung(out, "slab gaps", s.active - s.allocated - s.magazines, s.mapped,
             "free slots and tails of slabs");
  write_rung(out, "active", s.active, s.mapped, "all slabs and large blocks: the sum of these");
  write_rung(out, "untouched", s.untouched, s.mapped, "pages of these that are not in memory");
  write_rung(out, "dirty", s.dirty, s.mapped, "free pages not given back to the kernel yet");
  write_rung(out, "mapped", s.mapped, s.mapped, "active, free pages, and lanes");
  write_rung(out, "metadata", s.metadata, s.mapped, "our own data that is in memory");
  write_rung(out, "resident", s.resident, s.mapped,
             "active - untouched + dirty + metadata; measured");

  Text line;
  line.put("\n  ");
  if (s.allocated != 0) {
    line.put("resident / allocated ").fixed(s.resident * 1000 / s.allocated, 2);
    line.put(", active / allocated ").fixed(s.active * 1000 / s.allocated, 2).put("; ");
  }
  line.put("large blocks ").decimal(s.large_blocks).put(" with ").size(s.large);
  line.put("; lanes ").decimal(s.lanes);
  if (s.huge != 0) line.put("; in huge pages ").size(s.huge);
  if (s.mosaics != 0) line.put("; mosaics ").decimal(s.mosaics);
  out.put(line.put("\n\n"));

  Bytes gap = 0;
  Bytes largest_gap = 0;
  for (std::uint32_t c = 0; c < kClassCount; c++) {
    const Bytes of_class = free_in_slabs(s.classes[c], kSizeClasses[c].slot_bytes);
    gap += of_class;
    if (of_class > largest_gap) largest_gap = of_class;
  }
  out.put(Text().put(
      "      slot   slabs    objects    used   allocated        free  where the gap is\n"));
  ClassStats rest;
  Bytes rest_allocated = 0;
  Bytes rest_free = 0;
  for (std::uint32_t c = 0; c < kClassCount; c++) {
    const ClassStats& of_class = s.classes[c];
    const std::uint32_t slot_bytes = kSizeClasses[c].slot_bytes;
    const Bytes wasted = free_in_slabs(of_class, slot_bytes);
    const Bytes allocated = of_class.used * slot_bytes;
    if (of_class.slots == 0) continue;
    if (wasted * kSmallestShare >= gap || allocated * kSmallestShare >= s.allocated) {
      write_class(out, slot_bytes, of_class, largest_gap);
    } else {
      rest.slabs += of_class.slabs;
      rest.used += of_class.used;
      rest.slots += of_class.slots;
      rest_allocated += allocated;
      rest_free += wasted;
    }
  }
  if (rest.slots != 0) {
    Text others;
    others.put("    others");
    number_column(others, rest.slabs, 8);
    number_column(others, rest.used, 11);
    percent_column(others, rest.used, rest.slots, 8);
    size_column(others, rest_allocated, 12);
    out.put(size_column(others, rest_free, 12).put('\n'));
  }
  out.put(Text().put('\n'));
  write_heaps(out);
}

void write_json(const Output& out) {
  constexpr std::uint64_t kSchema = 1;
  HeapStats s;
  collect_stats(s);
  Text line;
  line.put("{\"schema\": ").decimal(kSchema).put(", \"release\": \"").put(ashlar_version());
  line.put("\", \"pid\": ").decimal(static_cast<std::uint64_t>(::getpid()));
  out.put(line.put(",\n \"heap\": {"));
  const char* separator = "";
  const auto number = [&](std::string_view name, std::uint64_t n) {
    out.put(Text().put(separator).put('"').put(name).put("\": ").decimal(n));
    separator = ", ";
  };
  number("allocated", s.allocated);
  number("magazines", s.magazines);
  number("gaps", s.active - s.allocated - s.magazines);
  number("active", s.active);
  number("untouched", s.untouched);
  number("dirty", s.dirty);
  number("free", s.free);
  number("mapped", s.mapped);
  number("metadata", s.metadata);
  number("resident", s.resident);
  out.put(Text().put("},\n \"large_blocks\": ").decimal(s.large_blocks));
  out.put(Text().put(", \"large_bytes\": ").decimal(s.large));
  out.put(Text().put(", \"mosaics\": ").decimal(s.mosaics));
  out.put(Text().put(", \"lanes\": ").decimal(s.lanes).put(",\n \"classes\": ["));
  const char* between = "";
  for (std::uint32_t c = 0; c < kClassCount; c++) {
    const ClassStats& of_class = s.classes[c];
    if (of_class.slots == 0) continue;
    out.put(Text().put(between).put("\n  {"));
    between = ",";
    separator = "";
    number("slot_bytes", kSizeClasses[c].slot_bytes);
    number("slabs", of_class.slabs);
    number("slots", of_class.slots);
    number("live", of_class.used);
    number("cached", of_class.cached);
    number("free", free_in_slabs(of_class, kSizeClasses[c].slot_bytes));
    out.put(Text().put('}'));
  }
  out.put(Text().put("\n ],\n \"heaps\": ["));
  between = "";
  const std::uint32_t left_out = program_heaps.for_each([&](const ProgramHeap::Account& heap) {
    out.put(Text().put(between).put("\n  {"));
    between = ",";
    separator = "";
    number("number", heap.number);
    out.put(Text().put(", \"own_pages\": ").put(heap.has_own_pages ? "true" : "false"));
    number("objects", heap.held.objects);
    number("allocated", heap.held.allocated);
    number("active", heap.held.active);
    number("resident", heap.resident);
    out.put(Text().put('}'));
  });
  out.put(Text().put("\n ],\n \"heaps_left_out\": ").decimal(left_out).put("}\n"));
}

bool write_xml(std::FILE* stream) {
  HeapStats s;
  collect_stats(s);
  const auto put = [stream](const Text& text) {
    std::fwrite(text.view().data(), 1, text.view().size(), stream);
  };
  put(Text()
          .put("<malloc version=\"ashlar ")
          .put(ashlar_version())
          .put("\">\n<heap nr=\"0\">\n<sizes>\n"));
  for (std::uint32_t c = 0; c < kClassCount; c++) {
    const ClassStats& of_class = s.classes[c];
    if (of_class.slabs == 0) continue;
    put(Text()
            .put("  <size slot=\"")
            .decimal(kSizeClasses[c].slot_bytes)
            .put("\" slabs=\"")
            .decimal(of_class.slabs)
            .put("\" used=\"")
            .decimal(of_class.used)
            .put("\" free=\"")
            .decimal(of_class.slots - of_class.used)
            .put("\"/>\n"));
  }
  put(Text().put("</sizes>\n"));
  const auto total = [&](std::string_view type, std::uint64_t count, Bytes bytes) {
    put(Text()
            .put("<total type=\"")
            .put(type)
            .put("\" count=\"")
            .decimal(count)
            .put("\" size=\"")
            .decimal(bytes)
            .put("\"/>\n"));
  };
  total("large", s.large_blocks, s.large);
  const auto system = [&](std::string_view type, Bytes bytes) {
    put(Text().put("<system type=\"").put(type).put("\" size=\"").decimal(bytes).put("\"/>\n"));
  };
  system("allocated", s.allocated);
  system("active", s.active);
  system("current", s.mapped);
  system("resident", s.resident);
  put(Text().put("</heap>\n</malloc>\n"));
  return std::ferror(stream) == 0;
}

}  // namespace ashlar
