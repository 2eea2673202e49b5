// SPDX-License-Identifier: MIT
// A heap, live in the terminal.
#include <algorithm>
#include <csignal>
#include <deque>
#include <fmt/format.h>
#include <poll.h>
#include <termios.h>
#include <unistd.h>

#include "../capture.h"
#include "../text.h"
#include "print.h"

namespace ashlar::frag {

namespace {

volatile std::sig_atomic_t interrupted = 0;

// The other screen of the terminal, without a cursor and with keys as they come; as it was, later.
class Screen {
 public:
  Screen() {
    ::signal(SIGINT, [](int) { interrupted = 1; });
    ::signal(SIGTERM, [](int) { interrupted = 1; });
    ::signal(SIGWINCH, [](int) {});  // ends a wait: the next frame has the new size
    reads_keys_ = ::tcgetattr(STDIN_FILENO, &before_) == 0;
    if (reads_keys_) {
      termios raw = before_;
      raw.c_lflag &= ~static_cast<tcflag_t>(ICANON | ECHO);
      ::tcsetattr(STDIN_FILENO, TCSANOW, &raw);
    }
    put("\x1b[?1049h\x1b[?25l");
  }
  Screen(const Screen&) = delete;
  ~Screen() {
    put("\x1b[?25h\x1b[?1049l");
    if (reads_keys_) ::tcsetattr(STDIN_FILENO, TCSANOW, &before_);
  }

  // Lines replace those that were there, so that nothing flickers.
  void show(const std::string& text, const View& view) {
    std::string out = "\x1b[H";
    int lines = view.lines;
    for (std::size_t at = 0; at < text.size() && lines > 0; lines--) {
      const std::size_t end = std::min(text.find('\n', at), text.size());
      out += cut(text.substr(at, end - at), view.columns) + "\x1b[K";
      if (lines > 1) out += "\r\n";
      at = end + 1;
    }
    put(out + "\x1b[J");
  }

  // True when the user wants to leave.
  bool wait(Milliseconds time) const {
    pollfd key{.fd = reads_keys_ ? STDIN_FILENO : -1, .events = POLLIN, .revents = 0};
    if (::poll(&key, 1, static_cast<int>(time.count())) > 0) {
      char c = 0;
      if (::read(STDIN_FILENO, &c, 1) == 1 && (c == 'q' || c == 'Q' || c == 3)) return true;
    }
    return interrupted != 0;
  }

 private:
  static void put(const std::string& text) {
    fmt::print("{}", text);
    std::fflush(stdout);
  }
  termios before_{};
  bool reads_keys_ = false;
};

// The last minutes as a line of blocks.
std::string history(const std::deque<std::uint64_t>& values, std::uint64_t most) {
  static constexpr const char* kHeights[] = {"▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"};
  std::string out;
  for (const std::uint64_t n : values) {
    out += kHeights[most == 0 ? 0 : std::min<std::uint64_t>(n * 8 / most, 7)];
  }
  return out;
}

class Histories {
 public:
  std::string add(const Waterfall& heap, const View& view) {
    push(resident_, heap.resident, view);
    push(allocated_, heap.allocated, view);
    const std::uint64_t most = *std::ranges::max_element(resident_);
    return fmt::format("  resident  {} {}\n  allocated {} {}\n", history(resident_, most),
                       size_text(heap.resident), history(allocated_, most),
                       size_text(heap.allocated));
  }

 private:
  static void push(std::deque<std::uint64_t>& values, std::uint64_t n, const View& view) {
    values.push_back(n);
    while (values.size() > static_cast<std::size_t>(std::max(view.columns - 26, 10))) {
      values.pop_front();
    }
  }
  std::deque<std::uint64_t> resident_, allocated_;
};

}  // namespace

int run_top(const std::string& name, Milliseconds every, int frames, bool json) {
  const std::unique_ptr<Target> target = open_target(name);
  Histories histories;
  std::optional<Screen> screen;
  for (int frame = 1;; frame++) {
    const Report report = make_report(capture(*target));
    const View view = view_of_terminal();
    if (json) {
      fmt::print("{}\n", json_text(to_json(report)));
    } else {
      const std::string text = screen_text(report, view, histories.add(report.heap, view));
      if (view.drawable) {
        if (!screen) screen.emplace();
        screen->show(text, view);
      } else {
        fmt::print("{}\n", text);
      }
    }
    std::fflush(stdout);
    if (frame == frames) return kFine;
    if (screen) {
      if (screen->wait(every)) return kFine;
    } else {
      ::poll(nullptr, 0, static_cast<int>(every.count()));
    }
  }
}

}  // namespace ashlar::frag
