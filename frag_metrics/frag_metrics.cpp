// SPDX-License-Identifier: MIT
// The library's doors for C.
#include "frag_metrics.h"

#include <cstdlib>
#include <cstring>

#include "capture.h"
#include "report.h"

struct frag_snapshot {
  ashlar::frag::Snapshot snapshot;
};

namespace {

namespace frag = ashlar::frag;

template <class Open>
frag_snapshot* capture_from(Open&& open, char* error, std::size_t error_bytes) {
  try {
    return new frag_snapshot{frag::capture(*open())};
  } catch (const std::exception& e) {
    if (error != nullptr && error_bytes != 0) {
      std::strncpy(error, e.what(), error_bytes);
      error[error_bytes - 1] = '\0';
    }
    return nullptr;
  }
}

}  // namespace

extern "C" {

frag_snapshot* frag_capture_process(int64_t pid, char* error, size_t error_bytes) {
  return capture_from([=] { return frag::open_process(pid); }, error, error_bytes);
}

frag_snapshot* frag_capture_core(const char* path, char* error, size_t error_bytes) {
  return capture_from([=] { return frag::open_core(path); }, error, error_bytes);
}

void frag_free(frag_snapshot* snapshot) { delete snapshot; }

void frag_get_waterfall(const frag_snapshot* snapshot, frag_waterfall* result) {
  const frag::Waterfall w = frag::waterfall(snapshot->snapshot);
  *result = {.allocated = w.allocated,
             .magazines = w.magazines,
             .pending = w.pending,
             .gaps = w.gaps,
             .active = w.active,
             .untouched = w.untouched,
             .dirty = w.dirty,
             .metadata = w.metadata,
             .resident = w.resident,
             .mapped = w.mapped,
             .swapped = w.swapped};
}

size_t frag_get_classes(const frag_snapshot* snapshot, frag_class* classes, size_t room) {
  const std::vector<frag::ClassMetrics> all = frag::classes(snapshot->snapshot);
  for (std::size_t i = 0; i < all.size() && i < room; i++) {
    classes[i] = {.slot_bytes = all[i].slot_bytes,
                  .slabs = all[i].slabs,
                  .slots = all[i].slots,
                  .objects = all[i].live + all[i].in_mosaics,
                  .free = all[i].free,
                  .deciles = {}};
    std::memcpy(classes[i].deciles, all[i].deciles.data(), sizeof classes[i].deciles);
  }
  return all.size();
}

double frag_unusable_free_space(const frag_snapshot* snapshot, uint64_t request_pages) {
  return frag::unusable_free_space(snapshot->snapshot, request_pages == 0 ? 1 : request_pages);
}

uint64_t frag_meshable(const frag_snapshot* snapshot, uint32_t run_pages) {
  return frag::meshable(snapshot->snapshot, run_pages);
}

char* frag_json(const frag_snapshot* snapshot) {
  try {
    return ::strdup(
        frag::json_text(frag::to_json(frag::make_report(snapshot->snapshot)), 2).c_str());
  } catch (const std::exception&) {
    return nullptr;
  }
}

}  // extern "C"
