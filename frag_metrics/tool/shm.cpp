// SPDX-License-Identifier: MIT
// Arenas in shared memory: list, numbers, soundness, recovery, removal. What `report` shows is read
// from their files; here the arena's own library is asked, which maps them.
#include <ashlar/shm.h>

#include <cerrno>
#include <csignal>
#include <cstring>
#include <fmt/format.h>
#include <unistd.h>

#include "../text.h"
#include "print.h"

namespace ashlar::frag {

namespace {

using nlohmann::json;

struct Close {
  void operator()(ashlar_shm* arena) const { ::ashlar_shm_close(arena); }
};
using Arena = std::unique_ptr<ashlar_shm, Close>;

// A path has a slash behind its first letter; anything else is a name.
bool is_path(const std::string& name) { return name.find('/', 1) != std::string::npos; }

std::string without_prefix(const std::string& name) {
  constexpr std::string_view kPrefix = "shm:";
  return name.starts_with(kPrefix) ? name.substr(kPrefix.size()) : name;
}

std::string reason(int error) {
  return error == EPROTO ? "no arena, or one of another version or build" : std::strerror(error);
}

Arena try_to_open(const std::string& name, unsigned flags) {
  return Arena(is_path(name) ? ::ashlar_shm_open_file(name.c_str(), flags)
                             : ::ashlar_shm_open(name.c_str(), flags));
}

Arena open(const std::string& name, unsigned flags) {
  Arena arena = try_to_open(name, flags);
  if (arena == nullptr && errno == ENOENT) {
    throw no_such_arena(is_path(name) ? name : "shm:" + name);
  }
  if (arena == nullptr) throw Error(name + ": " + reason(errno));
  return arena;
}

// Who shortens a file that others have mapped takes the pages from under their feet.
void expect_truncation() {
  ::signal(SIGBUS, [](int) {
    constexpr std::string_view kText = "ashlar: the arena was cut short while it was looked at\n";
    static_cast<void>(!::write(STDERR_FILENO, kText.data(), kText.size()));
    ::_exit(kFailed);
  });
}

ashlar_shm_stats stats_of(const Arena& arena) {
  ashlar_shm_stats stats{};
  if (::ashlar_shm_stat(arena.get(), &stats) != 0) throw Error(reason(errno));
  return stats;
}

json to_json(const ashlar_shm_stats& s) {
  return {{"max_bytes", s.max_bytes},
          {"mapped", s.mapped},
          {"active", s.active},
          {"allocated", s.allocated},
          {"free", s.free_pages},
          {"longest_run", s.longest_run},
          {"metadata", s.metadata},
          {"small_blocks", s.small_blocks},
          {"large_blocks", s.large_blocks},
          {"quota", s.quota},
          {"recoveries", s.recoveries},
          {"bad_frees", s.bad_frees},
          {"processes", s.processes},
          {"lanes", s.lanes}};
}

std::vector<std::string> names_of_arenas() {
  std::vector<std::string> names;
  const auto add = [](const char* name, void* to) {
    static_cast<std::vector<std::string>*>(to)->push_back(name);
    return 0;
  };
  if (::ashlar_shm_list(add, &names) != 0) throw Error("/dev/shm: " + reason(errno));
  std::ranges::sort(names);
  return names;
}

json roots_of(const Arena& arena) {
  json roots = json::object();
  const auto add = [](const char* key, ashlar_off offset, void* to) {
    (*static_cast<json*>(to))[key] = offset;
    return 0;
  };
  ::ashlar_shm_roots(arena.get(), add, &roots);
  return roots;
}

json processes_of(const Arena& arena) {
  json processes = json::array();
  const auto add = [](const ashlar_shm_process* p, void* to) {
    static_cast<json*>(to)->push_back({{"pid", p->pid},
                                       {"name", p->name},
                                       {"alive", p->alive != 0},
                                       {"scoped", p->scoped != 0},
                                       {"lanes", p->lanes},
                                       {"held", p->held}});
    return 0;
  };
  ::ashlar_shm_processes(arena.get(), add, &processes);
  return processes;
}

void print_stats(const std::string& name, const ashlar_shm_stats& s, const json& processes,
                 const json& roots, const View& view) {
  const Style style(view);
  fmt::print("{}{}{}\n", style.bold, name, style.off);
  const auto line = [](const char* what, const std::string& value) {
    fmt::print("  {:<12}{:>12}\n", what, value);
  };
  line("room", size_text(s.max_bytes));
  line("mapped", size_text(s.mapped));
  line("active", size_text(s.active));
  line("allocated", size_text(s.allocated));
  line("free", size_text(s.free_pages));
  line("longest run", size_text(s.longest_run));
  line("metadata", size_text(s.metadata));
  line("blocks", std::to_string(s.small_blocks + s.large_blocks));
  line("of them large", std::to_string(s.large_blocks));
  line("quota", s.quota == 0 ? "none" : size_text(s.quota));
  line("recoveries", std::to_string(s.recoveries));
  line("bad frees", std::to_string(s.bad_frees));
  line("names", std::to_string(roots.size()));
  line("lanes", std::to_string(s.lanes));
  line("processes", std::to_string(s.processes));
  for (const json& p : processes) {
    fmt::print("    {:>8}  {:<15}{:>4} lanes{:>12}{}{}\n", p["pid"].get<int>(),
               printable(p["name"].get<std::string>()), p["lanes"].get<unsigned>(),
               size_text(p["held"].get<std::uint64_t>()), p["scoped"].get<bool>() ? "  scoped" : "",
               p["alive"].get<bool>() ? "" : "  dead, not recovered");
  }
}

}  // namespace

int run_shm_list(const View& view) {
  expect_truncation();
  json all = json::array();
  const Style style(view);
  if (!view.json) {
    fmt::print("{}      room    mapped    active  allocated  processes  name{}\n", style.dim,
               style.off);
  }
  for (const std::string& name : names_of_arenas()) {
    const Arena arena = try_to_open(name, ASHLAR_SHM_READ_ONLY);
    if (arena == nullptr) continue;  // it has gone meanwhile
    const ashlar_shm_stats s = stats_of(arena);
    if (view.json) {
      json one = to_json(s);
      one["name"] = name;
      all.push_back(std::move(one));
    } else {
      fmt::print("{:>10}{:>10}{:>10}{:>11}{:>11}  {}\n", size_text(s.max_bytes),
                 size_text(s.mapped), size_text(s.active), size_text(s.allocated), s.processes,
                 printable(name));
    }
  }
  if (view.json)
    fmt::print("{}\n", json_text({{"schema", kSchema}, {"arenas", std::move(all)}}, 2));
  return kFine;
}

int run_shm_stat(const std::string& target, const View& view) {
  expect_truncation();
  const std::string name = without_prefix(target);
  const Arena arena = open(name, ASHLAR_SHM_READ_ONLY);
  const ashlar_shm_stats stats = stats_of(arena);
  json processes = processes_of(arena);
  json roots = roots_of(arena);
  if (!view.json) {
    print_stats(name, stats, processes, roots, view);
    return kFine;
  }
  json all = to_json(stats);
  all["schema"] = kSchema;
  all["name"] = name;
  all["attached"] = std::move(processes);
  all["roots"] = std::move(roots);
  fmt::print("{}\n", json_text(all, 2));
  return kFine;
}

int run_shm_check(const std::string& target, const View& view) {
  expect_truncation();
  const std::string name = without_prefix(target);
  const Arena arena = open(name, ASHLAR_SHM_READ_ONLY);
  char why[256] = "";
  const bool sound = ::ashlar_shm_check(arena.get(), why, sizeof why) == 0;
  if (!sound && errno != EUCLEAN) throw Error(name + ": " + reason(errno));
  if (view.json) {
    fmt::print("{}\n", json_text({{"schema", kSchema}, {"sound", sound}, {"why", why}}));
  } else {
    fmt::print("{}: {}\n", name, sound ? "sound" : fmt::format("not sound: rule {}", why));
  }
  return sound ? kFine : kFindings;
}

int run_shm_recover(const std::string& target, const View& view) {
  expect_truncation();
  const std::string name = without_prefix(target);
  const Arena arena = open(name, 0);
  const int recovered = ::ashlar_shm_recover(arena.get());
  if (recovered < 0) throw Error(name + ": " + reason(errno));
  if (view.json) {
    fmt::print("{}\n", json_text({{"schema", kSchema}, {"recovered", recovered}}));
  } else {
    fmt::print("{}: {} process{} recovered\n", name, recovered, recovered == 1 ? "" : "es");
  }
  return kFine;
}

int run_shm_remove(const std::string& target, bool any_file, const View& view) {
  const std::string name = without_prefix(target);
  unsigned processes = 0;
  if (!any_file) {
    expect_truncation();
    processes = stats_of(open(name, ASHLAR_SHM_READ_ONLY)).processes;
  }
  const int failed = is_path(name) ? ::unlink(name.c_str()) : ::ashlar_shm_unlink(name.c_str());
  if (failed != 0) throw Error(name + ": " + reason(errno));
  if (view.json) {
    fmt::print("{}\n",
               json_text({{"schema", kSchema}, {"removed", name}, {"processes", processes}}));
  } else if (processes != 0) {
    fmt::print("{}: removed; {} process{} keep{} it until the end\n", name, processes,
               processes == 1 ? "" : "es", processes == 1 ? "s" : "");
  }
  return kFine;
}

}  // namespace ashlar::frag
