// SPDX-License-Identifier: MIT
// ashlar-frag: one workload, under whatever malloc is preloaded, and what it held over time.
//
//   ashlar-frag WORKLOAD [--scale=F] [--seed=N] [--idle=SECONDS] [--json=FILE] [--packer=NAME]
//
// Without arguments it lists the workloads. --scale=1, the default, has a peak of up to 1 GiB; 0.06
// stays below 64 MiB. --packer: no malloc, but a way to place objects: see packer.h. script/frag
// runs it under many allocators and draws the curves.
#include <dlfcn.h>
#include <sys/resource.h>

#include <charconv>
#include <cstdio>
#include <cstdlib>
#include <string_view>

#include "program.h"

namespace ashlar::bench::frag {
namespace {

struct Named {
  std::string_view name;
  Workload* run;
};
constexpr Named kWorkloads[] = {
    {"empty", [](Program& program) { program.mark("start"), program.idle(); }},
    {"survivors", survivors},
    {"survivors_95", survivors_95},
    {"size_shift", size_shift},
    {"server", server},
    {"doubling", doubling},
    {"large", large},
    {"large_churn", large_churn},
    {"peak_trough", peak_trough},
    {"pinned", pinned},
    {"thread_churn", thread_churn},
    {"remote_free", remote_free},
    {"idle", idle_threads},
    {"parked", parked_threads},
};

const Named* find_workload(std::string_view name) {
  for (const Named& workload : kWorkloads) {
    if (workload.name == name) return &workload;
  }
  return nullptr;
}

template <class Number>
Number number(std::string_view text, std::string_view option, Number least, Number most) {
  Number value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || !(value >= least) ||
      !(value <= most)) {
    die("%.*s wants a number from %g to %g", static_cast<int>(option.size()), option.data(),
        static_cast<double>(least), static_cast<double>(most));
  }
  return value;
}

const char* malloc_file() {
  Dl_info where{};
  dladdr(dlsym(RTLD_DEFAULT, "malloc"), &where);
  return where.dli_fname != nullptr ? where.dli_fname : "nowhere";
}

double mib(std::size_t bytes) { return static_cast<double>(bytes) / static_cast<double>(kMiB); }

// A line for each mark, and the end. "net" is PSS without the workload's own tables.
void print_marks(const Meter& meter) {
  std::printf("%-10s %7s %9s %9s %9s %9s  %s\n", "", "s", "live", "usable", "net PSS", "RSS",
              "net/live   MiB");
  for (std::size_t i = 0; i < meter.count(); i++) {
    const Sample& sample = meter[i];
    const bool last = i + 1 == meter.count();
    if (sample.mark == nullptr && !last) continue;
    const std::size_t net = sample.pss - sample.tables;
    std::printf("%-10s %7.2f %9.2f %9.2f %9.2f %9.2f", last ? "end" : sample.mark, sample.time_s,
                mib(sample.live), mib(sample.usable), mib(net), mib(sample.rss - sample.tables));
    if (sample.live > 0) {
      std::printf(" %9.3f", static_cast<double>(net) / static_cast<double>(sample.live));
    }
    std::printf("\n");
  }
}

void write_json(std::FILE* file, std::string_view workload, const Settings& settings,
                const Meter& meter, Told told_at_end, std::size_t placed) {
  rusage used{};
  getrusage(RUSAGE_SELF, &used);
  const auto seconds = [](timeval time) {
    return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) * 1e-6;
  };
  std::fprintf(file, "{\"workload\": \"%.*s\", \"scale\": %g, \"seed\": %llu,\n",
               static_cast<int>(workload.size()), workload.data(), settings.scale,
               static_cast<unsigned long long>(settings.seed));
  std::fprintf(file, "\"malloc\": \"%s\", \"cpu_s\": %.3f, \"faults\": %ld,\n",
               settings.packer != nullptr ? "a packer" : malloc_file(),
               seconds(used.ru_utime) + seconds(used.ru_stime), used.ru_minflt);
  std::fprintf(file, "\"told_at_end\": {\"active\": %zu, \"metadata\": %zu},\n", told_at_end.active,
               told_at_end.metadata);
  std::fprintf(file, "\"pages_with_objects\": %zu,\n", placed);
  std::fprintf(
      file,
      "\"columns\": [\"time_s\", \"moved\", \"live\", \"usable\", \"pss\", \"rss\", \"huge\", "
      "\"tables\", \"active\", \"metadata\", \"mark\"],\n\"samples\": [\n");
  for (std::size_t i = 0; i < meter.count(); i++) {
    const Sample& sample = meter[i];
    std::fprintf(file, "%s[%.4f, %zu, %zu, %zu, %zu, %zu, %zu, %zu, %zu, %zu, \"%s\"]",
                 i == 0 ? "" : ",\n", sample.time_s, sample.moved, sample.live, sample.usable,
                 sample.pss, sample.rss, sample.huge, sample.tables, sample.told.active,
                 sample.told.metadata, sample.mark != nullptr ? sample.mark : "");
  }
  std::fprintf(file, "\n]}\n");
}

int usage() {
  std::fputs(
      "usage: ashlar-frag WORKLOAD [--scale=F] [--seed=N] [--idle=SECONDS] [--json=FILE] "
      "[--packer=first_fit|by_size]\n",
      stderr);
  for (const Named& workload : kWorkloads) {
    std::printf("%.*s\n", static_cast<int>(workload.name.size()), workload.name.data());
  }
  return 2;
}

int run(int argc, char** argv) {
  const Named* workload = argc > 1 ? find_workload(argv[1]) : nullptr;
  if (workload == nullptr) return usage();
  Settings settings;
  const char* json = nullptr;
  std::unique_ptr<Packer> packer;
  for (int i = 2; i < argc; i++) {
    const std::string_view argument = argv[i];
    const std::size_t equals = argument.find('=');
    const std::string_view option = argument.substr(0, equals);
    const std::string_view value =
        equals == argument.npos ? std::string_view() : argument.substr(equals + 1);
    if (option == "--scale") {
      settings.scale = number(value, option, 0.001, 16.0);
    } else if (option == "--seed") {
      settings.seed = number<std::uint64_t>(value, option, 0, UINT64_MAX);
    } else if (option == "--idle") {
      settings.idle_s = number(value, option, 0.0, 3600.0);
    } else if (option == "--json" && !value.empty()) {
      json = value.data();
    } else if (option == "--packer") {
      packer = Packer::make(value);
      if (packer == nullptr) return usage();
      settings.packer = packer.get();
    } else {
      return usage();
    }
  }

  find_teller();
  Program program(settings);
  workload->run(program);
  const Told told_at_end = settings.packer != nullptr ? Told{} : ask_allocator();
  const std::size_t placed = bytes_of_pages_with_objects();

  if (json == nullptr) {
    print_marks(program.meter);
    std::printf("pages with objects: %.2f MiB\n", mib(placed));
    return 0;
  }
  std::FILE* file = std::fopen(json, "w");
  if (file == nullptr) die("cannot write %s", json);
  write_json(file, workload->name, settings, program.meter, told_at_end, placed);
  if (std::fclose(file) != 0) die("cannot write %s", json);
  return 0;
}

}  // namespace
}  // namespace ashlar::bench::frag

int main(int argc, char** argv) { return ashlar::bench::frag::run(argc, argv); }
