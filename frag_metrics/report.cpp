// SPDX-License-Identifier: MIT
#include "report.h"

#include "target.h"

namespace ashlar::frag {

using nlohmann::json;

Report make_report(const Snapshot& snapshot) {
  Report r;
  r.source = snapshot.source;
  r.program = snapshot.program;
  r.pid = snapshot.pid;
  r.release = snapshot.release;
  r.unix_time = snapshot.unix_time;
  r.slabs_reread = snapshot.slabs_reread;
  r.dropped = snapshot.dropped;
  r.heap = waterfall(snapshot);
  r.requested = requested(snapshot);
  r.process = snapshot.process;
  r.holders = snapshot.holders;
  for (const Block& block : snapshot.blocks) {
    if (block.use != PageUse::large) continue;
    r.large_blocks++;
    r.large_bytes += block.pages * kPageBytes;
  }
  r.program_heaps = program_heaps(snapshot);
  for (const Lane& lane : snapshot.lanes) {
    r.lanes += lane.heap ? 0 : 1;
    r.lanes_leased += lane.leased ? 1 : 0;
  }
  r.classes = classes(snapshot);
  r.mosaics = mosaics(snapshot);
  r.empty = empty_pages(snapshot);
  for (const std::uint32_t pages : {1u, 4u, kPagesPerUnit}) {
    r.meshable.push_back({pages, meshable(snapshot, pages)});
  }
  r.dirty = dirty_by_age(snapshot);
  r.free_runs = free_runs(snapshot);
  for (const std::uint64_t pages : kRequestPages) {
    r.unusable.push_back({pages, unusable_free_space(snapshot, pages)});
  }
  r.huge = huge_pages(snapshot);
  r.findings = findings(snapshot);
  return r;
}

// Each structure is written and read by one list of its fields, so that the two cannot differ. What
// is optional may be missing in what is read: it is younger than the schema, or null.
namespace {

// Calls each(name, field) for the fields of a structure.
template <class Each>
void fields(Waterfall& w, Each&& each) {
  each("allocated", w.allocated);
  each("magazines", w.magazines);
  each("pending", w.pending);
  each("gaps", w.gaps);
  each("active", w.active);
  each("untouched", w.untouched);
  each("dirty", w.dirty);
  each("free", w.free);
  each("mapped", w.mapped);
  each("metadata", w.metadata);
  each("resident", w.resident);
  each("swapped", w.swapped);
}

template <class Each>
void fields(Requested& r, Each&& each) {
  each("least", r.least);
  each("most", r.most);
  each("estimate", r.estimate);
  each("deviation", r.deviation);
}

template <class Each>
void fields(ProcessMemory& m, Each&& each) {
  each("rss", m.rss);
  each("pss", m.pss);
  each("swap", m.swap);
  each("anonymous_huge", m.anonymous_huge);
}

template <class Each>
void fields(Holder& h, Each&& each) {
  each("pid", h.pid);
  each("name", h.name);
  each("alive", h.alive);
  each("scoped", h.scoped);
  each("lanes", h.lanes);
  each("held", h.held);
}

template <class Each>
void fields(ProgramHeapUse& h, Each&& each) {
  each("number", h.number);
  each("objects", h.objects);
  each("allocated", h.allocated);
  each("active", h.active);
}

template <class Each>
void fields(ClassMetrics& c, Each&& each) {
  each("slot_bytes", c.slot_bytes);
  each("slabs", c.slabs);
  each("slots", c.slots);
  each("live", c.live);
  each("in_mosaics", c.in_mosaics);
  each("cached", c.cached);
  each("pending", c.pending);
  each("active", c.active);
  each("free", c.free);
  each("tails", c.tails);
  each("rounding_most", c.rounding_most);
  each("empty_pages", c.empty_pages);
  each("deciles", c.deciles);
}

template <class Each>
void fields(Mosaics& m, Each&& each) {
  each("mosaics", m.mosaics);
  each("active", m.active);
  each("free", m.free);
  each("objects", m.objects);
}

template <class Each>
void fields(EmptyPages& e, Each&& each) {
  each("empty", e.empty);
  each("returnable", e.returnable);
}

template <class Each>
void fields(Meshable& m, Each&& each) {
  each("run_pages", m.run_pages);
  each("bytes", m.bytes);
}

template <class Each>
void fields(DirtyAge& d, Each&& each) {
  each("fresh", d.fresh);
  each("aged", d.aged);
}

template <class Each>
void fields(FreeRuns& f, Each&& each) {
  each("runs_by_order", f.runs);
  each("pages_by_order", f.pages);
  each("free_pages", f.free_pages);
  each("longest", f.longest);
}

template <class Each>
void fields(Unusable& u, Each&& each) {
  each("request_pages", u.request_pages);
  each("index", u.index);
}

template <class Each>
void fields(HugePages& h, Each&& each) {
  each("covered", h.covered);
  each("resident", h.resident);
}

template <class Each>
void fields(Finding& f, Each&& each) {
  each("name", f.name);
  each("what", f.what);
  each("bytes", f.bytes);
  each("threshold", f.threshold);
  each("cause", f.cause);
  each("remedy", f.remedy);
  each("saving", f.saving);
}

template <class Each>
void fields(Report& r, Each&& each) {
  each("source", r.source);
  each("program", r.program);
  each("pid", r.pid);
  each("release", r.release);
  each("unix_time", r.unix_time);
  each("slabs_reread", r.slabs_reread);
  each("dropped", r.dropped);
  each("heap", r.heap);
  each("requested", r.requested);
  each("process", r.process);
  each("holders", r.holders);
  each("large_blocks", r.large_blocks);
  each("large_bytes", r.large_bytes);
  each("program_heaps", r.program_heaps);
  each("lanes", r.lanes);
  each("lanes_leased", r.lanes_leased);
  each("classes", r.classes);
  each("mosaics", r.mosaics);
  each("empty_pages", r.empty);
  each("meshable", r.meshable);
  each("dirty_by_age", r.dirty);
  each("free_runs", r.free_runs);
  each("unusable_free_space", r.unusable);
  each("huge_pages", r.huge);
  each("findings", r.findings);
}

template <class T>
concept HasFields = requires(T& value) {
  fields(value, [](const char*, auto&) {});
};

template <class T>
void write(json& j, std::optional<T>& value);
template <class T>
void write(json& j, std::vector<T>& values);
template <class T>
void read(const json& j, std::optional<T>& value);
template <class T>
void read(const json& j, std::vector<T>& values);

template <class T>
void write(json& j, T& value) {
  if constexpr (HasFields<T>) {
    j = json::object();
    fields(value, [&](const char* name, auto& field) { write(j[name], field); });
  } else {
    j = value;
  }
}
template <class T>
void write(json& j, std::optional<T>& value) {
  if (value) {
    write(j, *value);
  } else {
    j = nullptr;
  }
}
template <class T>
void write(json& j, std::vector<T>& values) {
  j = json::array();
  for (T& value : values) write(j.emplace_back(), value);
}

template <class T>
void read(const json& j, T& value) {
  if constexpr (HasFields<T>) {
    fields(value, [&](const char* name, auto& field) {
      if constexpr (requires { field.has_value(); }) {
        if (!j.contains(name)) return;
      }
      read(j.at(name), field);
    });
  } else {
    j.get_to(value);
  }
}
template <class T>
void read(const json& j, std::optional<T>& value) {
  if (!j.is_null()) read(j, value.emplace());
}
template <class T>
void read(const json& j, std::vector<T>& values) {
  if (!j.is_array()) throw Error("not an array");
  for (const json& element : j) read(element, values.emplace_back());
}

}  // namespace

json to_json(const Report& report) {
  Report copy = report;
  json j;
  write(j, copy);
  j["schema"] = kSchema;
  return j;
}

json to_json(const Waterfall& heap) {
  Waterfall copy = heap;
  json j;
  write(j, copy);
  return j;
}

json to_json(const JohnstoneWilson& figures) {
  return {{"mean", figures.mean},
          {"at_most_live", figures.at_most_live},
          {"at_most_resident", figures.at_most_resident},
          {"most_over_most", figures.most_over_most}};
}

json to_json(std::span<const Moment> recording) {
  json moments = json::array();
  for (const Moment& moment : recording) {
    moments.push_back({{"ms", moment.ms}, {"rss", moment.rss}, {"heap", to_json(moment.heap)}});
  }
  return {{"schema", kSchema},
          {"moments", std::move(moments)},
          {"johnstone_wilson", to_json(johnstone_wilson(recording))}};
}

json to_json(std::span<const Site> sites) {
  json all = json::array();
  for (const Site& site : sites) {
    json stack = json::array();
    for (const Frame& frame : site.stack) {
      stack.push_back(
          {{"address", frame.address}, {"function", frame.function}, {"place", frame.place}});
    }
    all.push_back({{"samples", site.samples},
                   {"objects", site.objects},
                   {"bytes", site.bytes},
                   {"pinned", site.pinned},
                   {"stack", std::move(stack)}});
  }
  return all;
}

std::string json_text(const json& j, int indent) {
  return j.dump(indent, ' ', false, json::error_handler_t::replace);
}

Report report_from_json(const json& j) {
  try {
    if (const int schema = j.at("schema").get<int>(); schema != kSchema) {
      throw Error("a report of schema " + std::to_string(schema) + "; this program reads " +
                  std::to_string(kSchema));
    }
    Report report;
    read(j, report);
    return report;
  } catch (const json::exception& e) {
    const std::string what = e.what();  // "[json.exception.out_of_range.403] key 'x' not found"
    throw Error("not a report: " + what.substr(what.find("] ") + 2));
  }
}

}  // namespace ashlar::frag
