// SPDX-License-Identifier: MIT
#include "doctor.h"

#include <algorithm>
#include <fmt/format.h>

#include "text.h"

namespace ashlar::frag {

namespace {

class Doctor {
 public:
  explicit Doctor(const Snapshot& snapshot) : snapshot_(snapshot), heap_(waterfall(snapshot)) {
    const auto share =
        static_cast<std::uint64_t>(kLeastShare * static_cast<double>(heap_.resident));
    threshold_ = std::max(kLeastBytes, share);
  }

  std::vector<Finding> examine() {
    dead_processes();
    free_pages();
    empty_pages_in_slabs();
    sparse_slabs();
    magazines();
    pending();
    swapped();
    metadata();
    std::ranges::stable_sort(found_, std::ranges::greater(), &Finding::saving);
    return std::move(found_);
  }

 private:
  void find(Finding finding) {
    if (finding.bytes < threshold_) return;
    finding.threshold = threshold_;
    found_.push_back(std::move(finding));
  }

  // When memory goes back by itself.
  std::string period() const {
    if (snapshot_.purge_ms < 0) return "Nothing is given back unasked, as purge_ms is -1.";
    return fmt::format(
        "They go back when they were not used for purge_ms ({} ms); in a program of "
        "one thread, only while it uses the allocator.",
        snapshot_.purge_ms);
  }

  std::string trim_remedy() const {
    return snapshot_.purge_ms < 0 ? "Set purge_ms, or call malloc_trim(), or run `ashlar trim`."
                                  : "Call malloc_trim() when there is nothing to do, set "
                                    "background:always, or run `ashlar trim`.";
  }

  // A shared arena gives back whole chunks, at once and by itself.
  void free_pages() {
    if (!snapshot_.is_shared()) return dirty_pages();
    find({.name = "free_pages",
          .what = fmt::format("{} of free pages have memory.", size_text(heap_.dirty)),
          .bytes = heap_.dirty,
          .cause = "Its processes freed them. A shared arena gives back 2 MiB at a time, when no "
                   "block is left in them; one of fixed size never does.",
          .remedy = "Nothing, if new blocks come: they go there first. Otherwise free what is left "
                    "beside them.",
          .saving = 0});
  }

  void dead_processes() {
    if (!snapshot_.is_shared()) return;
    std::uint64_t held = 0;
    std::uint64_t scoped = 0;
    int dead = 0;
    for (const Holder& holder : *snapshot_.holders) {
      if (holder.alive) continue;
      dead++;
      held += holder.held;
      scoped += holder.scoped ? holder.held : 0;
    }
    find({.name = "dead_processes",
          .what = fmt::format("{} process{} died with {} and {} not recovered yet.", dead,
                              dead == 1 ? "" : "es", size_text(held), dead == 1 ? "is" : "are"),
          .bytes = held,
          .cause = "They were killed, or ended without closing the arena.",
          .remedy = fmt::format("Run `ashlar shm recover {}`. Whoever needs memory does the same "
                                "before the arena grows.",
                                snapshot_.program),
          .saving = scoped});
  }

  void dirty_pages() {
    find({.name = "dirty_pages",
          .what = fmt::format("{} of free pages are still in memory.", size_text(heap_.dirty)),
          .bytes = heap_.dirty,
          .cause = "The program freed them. " + period(),
          .remedy = trim_remedy(),
          .saving = heap_.dirty});
  }

  void empty_pages_in_slabs() {
    const std::uint64_t bytes = empty_pages(snapshot_).returnable;
    if (snapshot_.is_shared()) {
      return find({.name = "empty_pages",
                   .what = fmt::format("{} of pages in slabs hold no object.", size_text(bytes)),
                   .bytes = bytes,
                   .cause = "Objects beside them keep their slabs, and a shared arena makes no "
                            "holes in those.",
                   .remedy = "New objects of the same sizes fill them. Allocate what lives long "
                             "apart from what does not.",
                   .saving = 0});
    }
    find({.name = "empty_pages",
          .what = fmt::format("{} of pages in slabs hold no object.", size_text(bytes)),
          .bytes = bytes,
          .cause = "Objects beside them keep their slabs. " + period(),
          .remedy = trim_remedy(),
          .saving = bytes});
  }

  // What would be saved if the survivors of a class stood close together, in slabs of their own.
  // Empty pages are a finding of their own: they go without that.
  void sparse_slabs() {
    std::uint64_t gaps = 0;
    std::uint64_t saving = 0;
    std::vector<ClassMetrics> sparse;
    for (const ClassMetrics& c : classes(snapshot_)) {
      if (c.slabs < 2 || c.live * 2 > c.slots) continue;
      const std::uint64_t slots_per_slab = c.slots / c.slabs;
      const std::uint64_t slab_bytes = c.active / c.slabs;
      const std::uint64_t needed = (c.live + slots_per_slab - 1) / slots_per_slab * slab_bytes;
      const std::uint64_t resident = resident_bytes(c.slot_bytes) - c.empty_pages;
      gaps += c.free;
      saving += resident > needed ? resident - needed : 0;
      sparse.push_back(c);
    }
    if (sparse.empty()) return;
    std::ranges::sort(sparse, std::ranges::greater(), &ClassMetrics::free);
    std::string worst;
    for (std::size_t i = 0; i < std::min<std::size_t>(sparse.size(), 3); i++) {
      const ClassMetrics& c = sparse[i];
      worst += fmt::format("{}{} B ({} of {} slots in use, {} free)", i == 0 ? "" : ", ",
                           c.slot_bytes, c.live, c.slots, size_text(c.free));
    }
    // Bytes that are not resident are no waste.
    const std::uint64_t bytes = std::min(gaps, saving);
    find({.name = "sparse_slabs",
          .what = fmt::format("{} lie free between objects in slabs that are less than half full.",
                              size_text(bytes)),
          .bytes = bytes,
          .cause = fmt::format("The program freed many small objects, and the survivors keep "
                               "their slabs. Most of it in {} size class{}: {}.",
                               sparse.size(), sparse.size() == 1 ? "" : "es", worst),
          .remedy =
              std::string(snapshot_.is_shared() ? ""
                                                : "Find who holds them: `ashlar sites` (with "
                                                  "sample_kib:512). ") +
              "Allocate what lives long apart from what does not, or make the survivors anew (as "
              "Redis does with activedefrag)" +
              (snapshot_.is_shared() ? "" : ", or move them (ashlar_frag_move)") +
              ". New objects fill the gaps.",
          .saving = saving});
  }

  std::uint64_t resident_bytes(std::uint32_t slot_bytes) const {
    std::uint64_t bytes = 0;
    for (const Slab& slab : snapshot_.slabs) {
      const ClassShape& shape = snapshot_.shape(slab);
      if (shape.slot_bytes != slot_bytes || snapshot_.is_mosaic(slab)) continue;
      for (std::uint32_t p = 0; p < shape.pages(); p++) {
        bytes += snapshot_.pages[slab.first_page + p].resident ? kPageBytes : 0;
      }
    }
    return bytes;
  }

  // What is kept at hand lies beside live objects; pages come back only where none is.
  void magazines() {
    if (snapshot_.is_shared()) return;  // cursors: a word of slots for each class
    const EmptyPages empty = empty_pages(snapshot_);
    std::uint64_t bytes = empty.empty - empty.returnable;
    for (const Page page : snapshot_.pages) {
      bytes += page.use == PageUse::cached && page.resident ? kPageBytes : 0;
    }
    find({.name = "magazines",
          .what = fmt::format("{} of memory are in use for nothing but what threads keep at hand.",
                              size_text(bytes)),
          .bytes = bytes,
          .cause = fmt::format("Each of {} keeps what it freed last for its next mallocs: up to "
                               "magazine_kib ({} KiB) of small objects and 2 MiB of large ones. "
                               "Threads that sleep keep it, too.",
                               lanes(), snapshot_.magazine_kib),
          .remedy = "Lower magazine_kib, or let threads call malloc_trim() before they sleep.",
          .saving = bytes});
  }

  std::string lanes() const {
    const auto n = std::ranges::count_if(snapshot_.lanes, [](const Lane& l) { return !l.heap; });
    return fmt::format("{} {}", n, n == 1 ? "thread" : "threads");
  }

  void pending() {
    find({.name = "pending",
          .what = fmt::format("{} were freed by other threads than allocated them, and wait.",
                              size_text(heap_.pending)),
          .bytes = heap_.pending,
          .cause = "The threads that own these slabs have not allocated since.",
          .remedy = "Nothing, if they allocate again; they take over all of it then. Otherwise let "
                    "the threads that allocated these objects call malloc_trim() now and then.",
          .saving = 0});
  }

  void swapped() {
    find({.name = "swapped",
          .what = fmt::format("{} of the heap are swapped out.", size_text(heap_.swapped)),
          .bytes = heap_.swapped,
          .cause = "The machine, or the control group, is short of memory.",
          .remedy = "Give it more memory, or the heap less work.",
          .saving = 0});
  }

  void metadata() {
    const std::uint64_t usual = heap_.active / 20;
    if (heap_.metadata <= usual) return;
    if (snapshot_.is_shared()) return;  // as much as its chunks need
    find(
        {.name = "metadata",
         .what = fmt::format("The allocator's own data takes {}, {} of what is active.",
                             size_text(heap_.metadata), percent_text(heap_.metadata, heap_.active)),
         .bytes = heap_.metadata,
         .cause = fmt::format("It stays when the heap shrinks, and each of {} costs some (what "
                              "those had that ended is used again); so do samples.",
                              lanes()),
         .remedy = snapshot_.sample_kib > 0
                       ? "Fewer threads that allocate at the same time; a larger sample_kib."
                       : "Fewer threads that allocate at the same time.",
         .saving = 0});
  }

  const Snapshot& snapshot_;
  Waterfall heap_;
  std::uint64_t threshold_ = 0;
  std::vector<Finding> found_;
};

}  // namespace

std::vector<Finding> findings(const Snapshot& snapshot) { return Doctor(snapshot).examine(); }

}  // namespace ashlar::frag
