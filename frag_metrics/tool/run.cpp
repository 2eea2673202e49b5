// SPDX-License-Identifier: MIT
// Runs a program on the allocator, and records what its heap does.
#include <cerrno>
#include <csignal>
#include <cstring>
#include <filesystem>
#include <fmt/format.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../capture.h"
#include "../stacks.h"
#include "../text.h"
#include "html.h"
#include "print.h"

namespace ashlar::frag {

namespace {

constexpr int kNotFound = 127;  // as the shell says it

// The library that was built or installed with this tool.
std::filesystem::path find_library() {
  const std::filesystem::path here = std::filesystem::read_symlink("/proc/self/exe").parent_path();
  for (const char* place : {".", "../lib/x86_64-linux-gnu", "../lib64", "../lib"}) {
    const std::filesystem::path library = here / place / "libashlar.so.0";
    if (std::filesystem::exists(library)) return std::filesystem::canonical(library);
  }
  throw Error("libashlar.so.0 is neither beside this program nor in ../lib");
}

pid_t start(const std::vector<std::string>& command, const std::string& preload) {
  std::vector<char*> words;
  for (const std::string& word : command) words.push_back(const_cast<char*>(word.c_str()));
  words.push_back(nullptr);
  const pid_t child = ::fork();
  if (child < 0) throw Error(std::string("fork: ") + std::strerror(errno));
  if (child == 0) {
    ::setenv("LD_PRELOAD", preload.c_str(), 1);
    ::execvp(words[0], words.data());
    fmt::print(stderr, "ashlar: {}: {}\n", command[0], std::strerror(errno));
    ::_exit(errno == ENOENT ? kNotFound : 126);
  }
  return child;
}

// What asks us alone to end asks the program; how it ends is seen, and told in the report.
volatile pid_t asked_to_end = 0;
void hand_on(int number) { ::kill(asked_to_end, number); }

class Recorder {
 public:
  // `sites`: the call sites of samples are wanted, too.
  Recorder(pid_t pid, Milliseconds every, bool sites) : pid_(pid), every_(every), sites_(sites) {}

  // Until the program ends. Returns its status.
  int record() {
    using Clock = std::chrono::steady_clock;
    constexpr Milliseconds kStep{10};
    const auto begin = Clock::now();
    // The first look comes soon, so that short programs leave something, too.
    auto next = begin + std::min(every_, Milliseconds{50});
    for (;;) {
      int status = 0;
      const pid_t ended = ::waitpid(pid_, &status, WNOHANG);
      if (ended == pid_) return status;
      if (ended < 0 && errno != EINTR) throw Error(std::string("waitpid: ") + std::strerror(errno));
      const auto now = Clock::now();
      if (now >= next) {
        look(std::chrono::duration_cast<Milliseconds>(now - begin));
        next = std::max(next + every_, now);
      }
      ::usleep(static_cast<useconds_t>(Milliseconds(kStep).count() * 1000));
    }
  }

  const std::vector<Moment>& moments() const { return moments_; }
  const Snapshot& last() const { return last_; }
  // Who had allocated what was live then; empty where the program takes no samples.
  std::vector<Site> last_sites() {
    return stacks_ == nullptr ? std::vector<Site>{} : sites(samples_, stacks_->unwind(samples_));
  }

 private:
  void look(Milliseconds since) {
    try {
      const std::unique_ptr<Target> target = open_process(pid_);
      const std::uint64_t root = find_arena(*target);
      Snapshot snapshot = capture(*target, root);
      if (snapshot.pages.empty()) return;
      Moment moment;
      moment.ms = since.count();
      moment.heap = waterfall(snapshot);
      moment.rss = snapshot.process ? snapshot.process->rss : 0;
      moments_.push_back(moment);
      last_ = std::move(snapshot);
      if (sites_ && last_.sample_kib != 0) keep_samples(*target, root);
    } catch (const Error&) {
      // It is starting, or ending, or runs something that has another heap.
    }
  }

  // Names are looked up in the end, in the files that the program has mapped now.
  void keep_samples(Target& target, std::uint64_t root) {
    Samples samples = capture_samples(target, root, last_);
    stacks_ = std::make_unique<Stacks>(last_, "");
    samples_ = std::move(samples);
  }

  pid_t pid_;
  Milliseconds every_;
  bool sites_;
  std::vector<Moment> moments_;
  Snapshot last_;
  Samples samples_;                 // of `last_`, or of an earlier look
  std::unique_ptr<Stacks> stacks_;  // of the same
};

void print_summary(const std::vector<Moment>& moments) {
  const JohnstoneWilson f = johnstone_wilson(moments);
  std::uint64_t most_allocated = 0;
  std::uint64_t most_resident = 0;
  for (const Moment& m : moments) {
    most_allocated = std::max(most_allocated, m.heap.allocated);
    most_resident = std::max(most_resident, m.heap.resident);
  }
  fmt::print(
      stderr,
      "ashlar: {} moment{}; most allocated {}, most resident {}; resident / allocated {:.2f} "
      "on average, {:.2f} at most allocated, {:.2f} at most resident, {:.2f} most by most\n",
      moments.size(), moments.size() == 1 ? "" : "s", size_text(most_allocated),
      size_text(most_resident), f.mean, f.at_most_live, f.at_most_resident, f.most_over_most);
}

}  // namespace

int run_program(const std::vector<std::string>& command, const Recording& how) {
  std::string preload = find_library();
  if (preload.find_first_of(" :") != std::string::npos) {
    throw Error(preload + ": LD_PRELOAD can hold no path with a space or a colon");
  }
  if (const char* before = std::getenv("LD_PRELOAD"); before != nullptr && *before != '\0') {
    preload.append(":").append(before);
  }
  const pid_t child = start(command, preload);
  // What the terminal sends goes to both; the program decides, and we see how it ends.
  ::signal(SIGINT, SIG_IGN);
  ::signal(SIGQUIT, SIG_IGN);
  asked_to_end = child;
  ::signal(SIGTERM, hand_on);
  Recorder recorder(child, how.every, !how.html.empty());
  const int status = recorder.record();
  ::signal(SIGTERM, SIG_DFL);  // there is nobody left to hand it on to
  if (recorder.moments().empty()) {
    // Who could not be started has been told so.
    if (WIFEXITED(status) && WEXITSTATUS(status) == kNotFound) return kNotFound;
    fmt::print(stderr,
               "ashlar: nothing was recorded: the program ended at once, or does not run on the "
               "library\n");
  } else {
    const nlohmann::json recording = to_json(std::span(recorder.moments()));
    if (how.prints_json) {
      fmt::print("{}\n", json_text(recording, 1));
    } else {
      print_summary(recorder.moments());
    }
    if (!how.html.empty()) {
      const Report report = make_report(recorder.last());
      write_file(how.html,
                 html_page(recorder.last(), report, recorder.moments(), recorder.last_sites()));
    }
    if (!how.json.empty()) {
      write_file(how.json, json_text(recording, 1) + '\n');
    }
  }
  return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

}  // namespace ashlar::frag
