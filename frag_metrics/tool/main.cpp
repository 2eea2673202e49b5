// SPDX-License-Identifier: MIT
// ashlar: what a process does with its memory, seen from outside. The command line.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "verbs.h"

namespace ashlar::frag {

View view_of_terminal() {
  View view;
  view.terminal = ::isatty(STDOUT_FILENO) != 0;
  winsize size{};
  if (view.terminal && ::ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col != 0) {
    view.columns = size.ws_col;
    view.lines = size.ws_row;
  }
  const char* const type = std::getenv("TERM");
  view.drawable = view.terminal && (type == nullptr || std::string_view(type) != "dumb");
  const char* const no_color = std::getenv("NO_COLOR");
  view.color = view.drawable && (no_color == nullptr || *no_color == '\0');
  return view;
}

namespace {

// "500ms", "1s", "2m", or a number of seconds.
Milliseconds duration(const std::string& text) {
  char* end = nullptr;
  const double n = std::strtod(text.c_str(), &end);
  const std::string unit = end;
  const double ms = unit == "ms"                  ? n
                    : unit == "s" || unit.empty() ? n * 1000
                    : unit == "m"                 ? n * 60'000
                                                  : -1;
  if (end == text.c_str() || !(ms >= 10 && ms <= 86'400'000)) {
    throw Error(text + ": not a time from 10ms to 1440m");
  }
  return Milliseconds(static_cast<std::int64_t>(ms));
}

// CLI11 would only say that one is missing.
void expect_verb(const CLI::App& app, int argc, char** argv) {
  if (argc < 2 || argv[1][0] == '-') return;
  const auto verbs = app.get_subcommands([](const CLI::App*) { return true; });
  const auto is_it = [&](const CLI::App* verb) { return verb->get_name() == argv[1]; };
  if (std::ranges::none_of(verbs, is_it)) throw Error(fmt::format("\"{}\": no such verb", argv[1]));
}

int run(int argc, char** argv) {
  CLI::App app("What a process does with its memory, seen from outside.", "ashlar");
  app.set_version_flag("--version", "ashlar " ASHLAR_VERSION);
  app.require_subcommand(1);
  app.footer(
      "TARGET is a process id, a core file, or an arena in shared memory (shm:NAME, or its\n"
      "file); where numbers suffice, also the JSON of a report.\n"
      "Exit code: 0 all is well, 1 there are findings, 2 error. See ashlar(1).");

  View view = view_of_terminal();
  int code = kFine;
  std::string target, other, file, every = "1s", listen = "127.0.0.1:9189";
  std::vector<std::string> words;
  Recording recording;
  const auto verb = [&](const char* name, const char* help) {
    return app.add_subcommand(name, help);
  };
  const auto json = [&](CLI::App* of) { of->add_flag("--json", view.json, "Print JSON"); };
  const auto one_target = [&](CLI::App* of) {
    of->add_option("TARGET", target, "What to look at")->required();
  };

  CLI::App* const report = verb("report", "Where the bytes are, on one screen");
  one_target(report);
  json(report);
  report->add_option("--html", file, "Write a page with pictures to this file");
  report->callback([&] { code = run_report(target, file, view); });

  CLI::App* const doctor = verb("doctor", "What is wrong, why, and what to do");
  one_target(doctor);
  json(doctor);
  doctor->callback([&] { code = run_doctor(target, view); });

  CLI::App* const map = verb("map", "Every page, as a picture in the terminal");
  one_target(map);
  json(map);
  map->callback([&] { code = run_map(target, view); });

  int frames = 0;
  CLI::App* const top = verb("top", "The report, live; q ends it");
  one_target(top);
  json(top);
  top->add_option("--every", every, "Time between frames")->capture_default_str();
  top->add_option("--count", frames, "End after so many frames")->check(CLI::Range(1, 1'000'000));
  top->callback([&] { code = run_top(target, duration(every), frames, view.json); });

  CLI::App* const diff = verb("diff", "What changed between two reports");
  diff->add_option("BEFORE", target, "Process id, core file, or JSON of a report")->required();
  diff->add_option("AFTER", other, "The same")->required();
  json(diff);
  diff->callback([&] { code = run_diff(target, other, view); });

  CLI::App* const out = verb("export", "Numbers for other programs");
  out->add_option("TARGET", words, "What to look at")->required();
  Format format = Format::json;
  CLI::Option_group* const formats = out->add_option_group("format");
  const auto option = [&](const char* name, Format means, const char* help) {
    formats->add_flag_callback(
        name, [&format, means] { format = means; }, help);
  };
  option("--prometheus", Format::prometheus, "Prometheus text");
  option("--csv", Format::csv, "A table");
  option("--json", Format::json, "The reports");
  formats->require_option(1);
  out->callback([&] { code = run_export(words, format); });

  SitesForm form = SitesForm::text;
  CLI::App* const sites = verb("sites", "Which call sites hold what keeps sparse slabs");
  one_target(sites);
  const auto as = [&](const char* name, SitesForm means, const char* help) {
    sites->add_flag_callback(
        name, [&form, means] { form = means; }, help);
  };
  as("--json", SitesForm::json, "Print JSON");
  as("--folded", SitesForm::folded, "Print folded stacks with pinned bytes, for flame graphs");
  as("--pprof", SitesForm::pprof, "Print a heap profile for pprof");
  sites->callback([&] { code = run_sites(target, form, view); });

  std::string patience = "2s";
  CLI::App* const trim = verb("trim", "Ask a process to give back what it can");
  trim->add_option("PID", target, "Process id")->required();
  json(trim);
  trim->add_option("--wait", patience, "How long to wait for it")->capture_default_str();
  trim->callback([&] { code = run_trim(target, duration(patience), view); });

  CLI::App* const shm = verb("shm", "Arenas in shared memory");
  shm->require_subcommand(1);
  const auto on_arenas = [&](const char* name, const char* help, auto&& call) {
    CLI::App* const of = shm->add_subcommand(name, help);
    json(of);
    of->callback([&code, call] { code = call(); });
    return of;
  };
  const auto on_arena = [&](const char* name, const char* help, auto&& call) {
    CLI::App* const of = on_arenas(name, help, call);
    of->add_option("ARENA", target, "Its name, or the path of its file")->required();
    return of;
  };
  bool any_file = false;
  on_arenas("ls", "All arenas in /dev/shm that may be read", [&] { return run_shm_list(view); });
  on_arena("stat", "Numbers, processes and names", [&] { return run_shm_stat(target, view); });
  on_arena("check", "Whether it is sound; meant for a quiet arena",
           [&] { return run_shm_check(target, view); });
  on_arena("recover", "Settle what processes that died left behind",
           [&] { return run_shm_recover(target, view); });
  on_arena("rm", "Take its name away; who has it open keeps it", [&] {
    return run_shm_remove(target, any_file, view);
  })->add_flag("--force", any_file, "Also what is no arena of this build");

  CLI::App* const run = verb("run", "Run a program on the allocator and record its heap");
  run->add_option("--every", every, "Time between two looks")->capture_default_str();
  run->add_option("--report", recording.html, "Write a page with pictures to this file");
  run->add_option("--record", recording.json, "Write the recording to this file, as JSON");
  run->add_flag("--json", recording.prints_json, "Print the recording in the end, as JSON");
  run->add_option("PROGRAM", words, "The program and its arguments, after --")->required();
  run->footer("Exit code: the program's own.");
  run->callback([&] {
    recording.every = duration(every);
    code = run_program(words, recording);
  });

  CLI::App* const serve = verb("serve", "Serve numbers for Prometheus to scrape, and pages");
  serve->add_option("--listen", listen, "Address and port")->capture_default_str();
  serve->add_option("PID", words, "Processes; without, all that have the library mapped");
  json(serve);
  serve->callback([&] { code = run_serve(listen, words, view.json); });

  app.failure_message([](const CLI::App*, const CLI::Error& e) {
    return fmt::format("ashlar: {}\nRun with --help for more information.\n", e.what());
  });
  try {
    expect_verb(app, argc, argv);
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    return app.exit(e) == 0 ? kFine : kFailed;
  }
  return code;
}

// What a full disk or a closed descriptor did not take must not look like success.
void expect_all_written() {
  if (std::fflush(stdout) == 0 && std::ferror(stdout) == 0) return;
  throw Error(fmt::format("standard output cannot be written: {}", std::strerror(errno)));
}

}  // namespace

}  // namespace ashlar::frag

int main(int argc, char** argv) {
  try {
    const int code = ashlar::frag::run(argc, argv);
    ashlar::frag::expect_all_written();
    return code;
  } catch (const std::exception& e) {
    fmt::print(stderr, "ashlar: {}\n", e.what());
    return ashlar::frag::kFailed;
  }
}
